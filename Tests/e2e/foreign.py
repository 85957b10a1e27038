"""vLLM's own frontends. Tests that need them are left out where the environment does not name them."""

import os
import shutil

import pytest

RUST = os.environ.get("VLLM_E2E_RUST_FRONTEND") or shutil.which("vllm-rs")
PYTHON = os.environ.get("VLLM_E2E_PYTHON")

needs_rust = pytest.mark.skipif(not RUST, reason="needs vllm-rs of vLLM 0.32 or 0.33 (VLLM_E2E_RUST_FRONTEND)")
needs_python = pytest.mark.skipif(not PYTHON, reason="needs the interpreter of an environment with vLLM 0.32 (VLLM_E2E_PYTHON)")

# The options that choose one.
each_foreign = pytest.mark.parametrize("foreign", [
    pytest.param(("--frontend", "rust", "--frontend-binary", RUST), marks=needs_rust, id="rust"),
    pytest.param(("--frontend", "python", "--python", PYTHON), marks=needs_python, id="python"),
])
