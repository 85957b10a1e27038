"""`vllm-engine ab --live`: the frontends of a running service, with its own processes only."""

import json
import subprocess

import pytest

import processes
from server import BINARY, command
from test_split import parts, requests_answered

LOAD = ["--max-concurrency", "8", "--num-prompts", "16", "--random-input-len", "16", "--random-output-len", "8", "--num-warmups", "4",
        "--rounds", "2", "--idle-gap-ms", "0", "--equivalence", "4", "--noise-limit", "1"]


def test_frontends_of_a_running_service_are_compared(start_mock, tmp_path):
    stamps = tmp_path / "stamps"
    server = start_mock("--frontend", "swift,swift", "--split", "50/50", "--mock-itl-ms", "2", "--", "--stamps", str(stamps))
    first, second = parts(server)
    known = set(processes.descendants(server.process.pid))
    result = command(server, "ab", "--live", *LOAD, "--json", str(tmp_path / "run.json"), timeout=240)
    assert result.returncode == 0, result.stderr
    assert "SwiftFrontend_0" in result.stdout and "output equal: 4/4 texts" in result.stdout
    document = json.loads((tmp_path / "run.json").read_text())
    assert [arm["name"] for arm in document["arms"]] == ["SwiftFrontend_0", "SwiftFrontend_1"]
    assert str(server.port) in document["engine"]
    [load] = document["loads"]
    for arm in load["arms"]:
        assert (arm["requests"], arm["failures"], arm["output_tokens"]) == (2 * 16, {}, 2 * 16 * 8)
    metrics = {metric["name"]: metric for metric in load["metrics"]}
    # The engine left stamps, so what the frontends add is known.
    for name in ("p50_ttft", "frontend_cpu_per_token", "engine_cpu_per_token", "rss", "p50_ttft_added", "segments_per_token"):
        assert None not in metrics[name]["values"].values(), name
    [answers] = document["equivalence"]
    assert answers["answers_equal"] and answers["unequal_features"] == 0

    # Each frontend got its own load, and nothing was started or ended.
    expected = 2 * 16 + 4 * 2 * 16 // 2 + 4 + 4
    assert all(requests_answered(part) >= expected for part in parts(server))
    assert [part["pid"] for part in parts(server)] == [first["pid"], second["pid"]]
    assert set(processes.descendants(server.process.pid)) == known


def test_more_streams_than_a_door_passes_on_at_a_time(start_mock, tmp_path):
    # Connections that were handed over are not the door's any more.
    server = start_mock("--frontend", "swift,swift", "--split", "50/50", "--mock-itl-ms", "20")
    result = command(server, "ab", "--live", *LOAD, "--max-concurrency", "400", "--num-prompts", "400", "--rounds", "1", "--aa-rounds", "0",
                     "--no-feature-check", "--json", str(tmp_path / "run.json"), timeout=240)
    assert result.returncode == 0, result.stderr
    [load] = json.loads((tmp_path / "run.json").read_text())["loads"]
    assert [(arm["requests"], arm["failures"]) for arm in load["arms"]] == [(400, {})] * 2


def test_a_service_with_one_frontend_has_nothing_to_compare(start_mock):
    server = start_mock()
    result = command(server, "ab", "--live", *LOAD)
    assert result.returncode == 2 and "--live needs a service with two or three frontends" in result.stderr


@pytest.mark.parametrize("arguments, message", [
    (["--frontends", "swift,rust"], "--frontends: with --live nothing is started"),
    (["--engine", "blas"], "--engine: with --live nothing is started"),
    (["--", "--mock-itl-ms", "5"], "options of the engine: with --live nothing is started"),
])
def test_options_for_services_are_refused(arguments, message):
    result = subprocess.run([BINARY, "ab", "--live", *arguments], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2 and message in result.stderr, result.stderr
