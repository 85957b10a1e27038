"""tools/chaos/soak, one round for each kind of blow: mixed traffic, and an account after each."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/chaos"))

import soaking  # noqa: E402


def test_soak():
    seconds = float(os.environ.get("VLLM_E2E_SOAK_SECONDS", "1"))
    soak = soaking.Soak(os.environ.get("VLLM_E2E_SEED", "1"), rate=50, round_seconds=2, report=print)
    soak.run(seconds)
    assert soak.strikes.keys() == soaking.BLOWS.keys()
