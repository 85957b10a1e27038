#!/usr/bin/env python3
"""Averages the weights of two exports of one training line: keeps what the later one learnt and forgets less."""

import argparse
import pathlib
import shutil

from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("earlier", type=pathlib.Path)
parser.add_argument("later", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
args = parser.parse_args()
one, other = (load_file(folder / "model.safetensors") for folder in (args.earlier, args.later))
shutil.copytree(args.later, args.out, dirs_exist_ok=True)
mean = {name: ((one[name].float() + other[name].float()) / 2).to(one[name].dtype) for name in one}
save_file(mean, args.out / "model.safetensors", metadata={"format": "pt"})
