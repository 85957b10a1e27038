"""Makes a model folder whose tokenizer is as large as those of current models: `python3 large_tokenizer.py SMALL TARGET`.

The settings and the template are those of the folder SMALL. The 151,643 tokens and their merges are made up, but grown as real
ones are: each is two shorter tokens, and short ones come first. The same every time.
"""

import json
import pathlib
import random
import shutil
import sys

TOKENS = 151_643
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_alphabet():
    """The 256 characters that stand for bytes in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable], [chr(256 + index) for index in range(len(others))]


def grow(count, seed=1):
    """Tokens in the order of their ids, and the pairs that make them."""
    rng = random.Random(seed)
    printable, others = byte_alphabet()
    tokens = printable + others
    known, merges = set(tokens), []
    letters = [c for c in "etaoinshrdlucmfwypvbgkjqxz" for _ in range(1 + ord(c) % 5)] + ["\u0120"] * 4
    # Word parts first, then bytes of other scripts, as after real training.
    pieces = sorted(set(letters))
    while len(tokens) < count:
        if rng.random() < 0.02:
            left, right = rng.choice(others + printable), rng.choice(others + printable)
        else:
            left, right = rng.choice(pieces), rng.choice(pieces[: 200 + len(pieces) // 20])
        if right.startswith("\u0120") or len(left) + len(right) > 16 or left + right in known:
            continue
        token = left + right
        known.add(token)
        tokens.append(token)
        pieces.append(token)
        merges.append((left, right))
    return tokens, merges


def main(small, target):
    target.mkdir(parents=True, exist_ok=True)
    for path in small.iterdir():
        if path.is_file() and path.name not in {"tokenizer.json", "vocab.json", "merges.txt"} and path.stat().st_size < 1 << 20:
            shutil.copy(path, target / path.name)
    tokens, merges = grow(TOKENS)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(tokens) + i, "content": text} | flags for i, text in enumerate(SPECIAL)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [" ".join(pair) for pair in merges]},
    }
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
