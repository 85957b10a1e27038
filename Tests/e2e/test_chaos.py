"""tools/chaos: every fault of its table, and a few of its rounds of random blows at random moments."""

import os
import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/chaos"))

import rounds  # noqa: E402
import rows  # noqa: E402

SEED = os.environ.get("VLLM_E2E_SEED", "1")
ROUNDS = int(os.environ.get("VLLM_E2E_CHAOS_ROUNDS", "25"))
_rng = random.Random(SEED)


@pytest.mark.parametrize("number, scenario", [
    pytest.param(number, scenario, id=f"{number}-{scenario.__name__}")
    for number, scenario in enumerate([*rounds.SCENARIOS, *(rounds.draw(_rng) for _ in range(ROUNDS))][:ROUNDS])])
def test_round(number, scenario):
    problem = rounds.run_one(scenario, f"{SEED}/{number}")
    assert problem is None, f"tools/chaos round {SEED}/{number}: {problem}"


@pytest.mark.parametrize("measure", [pytest.param(row[-1], id=row[0]) for row in rows.ROWS])
def test_fault(measure):
    measure()
