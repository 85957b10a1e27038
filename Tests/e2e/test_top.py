"""`vllm-engine top`: one view of a service under load."""

import re

from test_swap import Requests
from server import command


def table(text, heading):
    """{first column: the other cells} of the table that begins with this word."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(heading))
    rows = {}
    for line in lines[start + 1:]:
        if not line:
            break
        name, *cells = re.split(r"\s{2,}", line.strip())
        rows[name] = cells
    return rows


def test_one_view_under_load(start_mock):
    server = start_mock("--mock-itl-ms", "5")
    load = Requests(server)
    load.wait_for_more(10)
    result = command(server, "top", "--once")
    assert load.stop() == [] and result.returncode == 0, result
    text = result.stdout
    assert text.startswith(f"serving at http://127.0.0.1:{server.port}, up ") and "\x1b" not in text
    processes = table(text, "NAME")
    assert set(processes) == {"Supervisor", "SwiftFrontend", "EngineCore"}
    for name, (pid, state, cpu, resident, restarts) in processes.items():
        assert state == "running" and float(cpu) >= 0 and float(resident) > 1, (name, text)
    assert processes["EngineCore"][0] == str(server.child("engine"))
    generated = re.search(r"generated/s (\S+)", text)
    assert float(generated[1]) > 0 and float(re.search(r"finished/s (\S+)", text)[1]) > 0, text
    assert re.search(r"KV cache  used \d+\.\d%", text)
    for name, cells in table(text, "LATENCY").items():
        low, middle, high = map(float, cells)
        assert 0 < low <= middle <= high, (name, text)


def test_quiet_service_has_no_rates(start_mock):
    server = start_mock()
    text = command(server, "top", "--once", "--interval", "0.2").stdout
    assert "running 0  waiting 0  finished 0  finished/s 0.0" in text
    assert table(text, "LATENCY") == {name: ["-"] * 3 for name in ("first token", "between tokens", "whole request")}


def test_several_frontends_are_summed(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "50/50")
    for _ in range(20):
        assert server.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 1}).status == 200
    text = command(server, "top", "--once", "--interval", "0.2").stdout
    assert "finished 20 " in text, text
    assert {"SwiftFrontend_0", "SwiftFrontend_1"} < set(table(text, "NAME"))


def test_service_that_ends_ends_the_view(start_mock):
    server = start_mock()
    server.stop()
    result = command(server, "top", "--once")
    assert result.returncode == 1 and "no vllm-engine is running" in result.stderr
