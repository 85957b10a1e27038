"""The rows of the interop matrix that need nobody else's programs. `tools/interop/run` runs all of them."""

import subprocess
import sys

from server import ROOT


def test_the_rows_without_peers():
    run = subprocess.run([sys.executable, ROOT / "tools/interop/run", "--fast"], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
