"""`--split`: two frontends at the same time before one engine, each with its share of the new connections."""

import http.client
import os
import re
import signal
import subprocess

import pytest

import http_client
import processes
from foreign import PYTHON, RUST, needs_python, needs_rust
from load import BackgroundStream
from server import BINARY, DEFAULT_MODEL, command, status, wait_until

BODY = {"model": "m", "prompt": "hello", "max_tokens": 2, "ignore_eos": True}


class BreakableStream(BackgroundStream):
    """Its frontend may die."""

    def read(self):
        try:
            super().read()
        except (OSError, http.client.HTTPException, AttributeError):  # the last one: http.client when a chunk is cut
            pass


def page(path, target):
    answer = http_client.request(path, "GET", target)
    assert answer.status == 200, (target, answer)
    return answer.body.decode()


def parts(server):
    return [process for process in status(server)["processes"] if process["role"] == "frontend"]


def requests_answered(part):
    """Finished requests on the frontend's own page."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in page(part["socket"], "/metrics").splitlines()
               if line.startswith("vllm:request_success_total{"))


def ask(server, count):
    for _ in range(count):
        assert server.post("/v1/completions", BODY).status == 200


def test_shares_hold_on_average(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "75/25", "--mock-itl-ms", "0")
    first, second = parts(server)
    assert (first["name"], first["share"]) == ("SwiftFrontend_0", 75) and (second["name"], second["share"]) == ("SwiftFrontend_1", 25)
    ask(server, 400)
    counts = [requests_answered(first), requests_answered(second)]
    assert sum(counts) == 400
    # Six standard deviations of 400 draws with 3 : 1.
    assert abs(counts[0] - 300) < 52, counts
    assert page(first["socket"], "/health") == ""
    text = command(server, "status").stdout
    assert f"curl --unix-socket {first['socket']} http://localhost/metrics" in text


def test_other_frontend_goes_on_and_the_dead_one_comes_back(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "50/50")
    first, second = parts(server)
    streams = [BreakableStream(server, 4000) for _ in range(8)]
    for stream in streams:
        stream.wait_for_tokens(2)
    os.kill(first["pid"], signal.SIGKILL)
    assert wait_until(lambda: parts(server)[0]["restarts"] == 1 and parts(server)[0]["state"] == "running", 10)
    assert parts(server)[1]["pid"] == second["pid"]
    ask(server, 20)
    alive = [stream for stream in streams if stream.thread.is_alive()]
    length = [len(stream.events) for stream in alive]
    for stream, before in zip(alive, length):
        stream.wait_for_tokens(before + 2)
    for stream in alive:
        stream.stream.close()


def test_share_of_one_that_stays_away_goes_to_the_other(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "50/50", "--restart-frontend", "never")
    first, second = parts(server)
    os.kill(first["pid"], signal.SIGKILL)
    assert wait_until(lambda: len(parts(server)) == 1, 10)
    assert "its share goes to SwiftFrontend_1" in server.log()
    ask(server, 30)
    assert requests_answered(second) == 30
    assert not os.path.exists(first["socket"])
    # The last one takes the service with it, as vLLM's frontend would.
    os.kill(second["pid"], signal.SIGKILL)
    assert server.wait_exit(10) == 1
    server.assert_gone()


def test_everything_ends_with_a_signal(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "1/1", "--shutdown-timeout", "20")
    streams = [BackgroundStream(server, 60) for _ in range(6)]
    for stream in streams:
        stream.wait_for_tokens(2)
    server.process.send_signal(signal.SIGTERM)
    assert [stream.finish()[-1] for stream in streams] == ["[DONE]"] * 6
    assert server.wait_exit(20) == 0
    server.assert_gone()


@needs_rust
def test_swift_beside_rust(start_mock):
    server = start_mock("--frontend", "swift,rust", "--frontend-binary", f",{RUST}", "--split", "50/50")
    swift, rust = parts(server)
    assert processes.program(rust["pid"]).startswith("vllm-rs")
    ask(server, 60)
    counts = [requests_answered(swift), requests_answered(rust)]
    assert sum(counts) == 60 and min(counts) > 5, counts


def test_before_several_engines(start_mock):
    server = start_mock("--frontend", "swift,swift", "--split", "50/50", "--data-parallel-size", "3", "--mock-itl-ms", "2")
    first, second = parts(server)
    ask(server, 60)
    assert requests_answered(first) + requests_answered(second) == 60
    for part in (first, second):
        engines = set(re.findall(r'vllm:request_success_total\{engine="(\d)"[^}]*\} [1-9]', page(part["socket"], "/metrics")))
        assert engines == {"0", "1", "2"}, engines
    # Either frontend's requests end when an engine dies, and the service with them.
    streams = [BreakableStream(server, 4000) for _ in range(6)]
    for stream in streams:
        stream.wait_for_tokens(2)
    os.kill(server.child("engine"), signal.SIGKILL)
    assert [stream.finish()[-1] for stream in streams] == ["[DONE]"] * 6
    assert server.wait_exit(10) == 1
    server.assert_gone()


@needs_python
def test_swift_beside_python(start_mock, tmp_path):
    server = start_mock("--frontend", "swift,python", "--python", PYTHON, "--split", "50/50",
                        environment={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    swift, python = parts(server)
    assert processes.program(python["pid"]).startswith("python")
    streams = [BackgroundStream(server, 30) for _ in range(12)]
    ask(server, 60)
    for stream in streams:
        events = stream.finish()
        assert events[-1] == "[DONE]" and '"finish_reason":"length"' in events[-2].replace(" ", ""), events[-2]
    counts = [requests_answered(swift), requests_answered(python)]
    assert sum(counts) == 72 and min(counts) > 5, counts
    os.kill(swift["pid"], signal.SIGKILL)
    assert wait_until(lambda: parts(server)[0]["restarts"] == 1, 10)
    ask(server, 20)


@pytest.mark.parametrize("options", [
    pytest.param(("--frontend", "swift,rust", "--frontend-binary", f",{RUST}"), marks=needs_rust, id="rust"),
    pytest.param(("--frontend", "swift,python", "--python", PYTHON), marks=needs_python, id="python"),
])
def test_streams_of_different_frontends_finish(start_mock, options, tmp_path):
    """vLLM's Python server would give its streams up at the first signal."""
    server = start_mock(*options, "--split", "50/50", "--shutdown-timeout", "60",
                        environment={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    streams = [BackgroundStream(server, 200) for _ in range(12)]
    for stream in streams:
        stream.wait_for_tokens(2)
    server.process.send_signal(signal.SIGTERM)
    seen = []

    def refused():
        seen.append(server.post("/v1/completions", BODY))
        return seen[-1].status == 503

    assert wait_until(refused, 5), seen
    assert [server.post("/v1/completions", BODY).status for _ in range(10)] == [503] * 10
    for stream in streams:
        events = stream.finish()
        assert events[-1] == "[DONE]" and '"finish_reason":"length"' in events[-2].replace(" ", ""), events[-2]
    assert server.wait_exit(20) == 0
    server.assert_gone()


@pytest.mark.parametrize("args, text", [
    (["--frontend", "swift,swift"], "needs --split"),
    (["--frontend", "swift,swift", "--split", "50"], "--split 50 must give each"),
    (["--frontend", "swift,swift", "--split", "0/100"], "must give each"),
    (["--frontend", "swift,python", "--split", "50/50", "--python", "/no/such"], "not an executable file"),
    (["--frontend", "swift,swift", "--split", "50/50", "--data-parallel-size", "2", "--data-parallel-size-local", "1",
      "--data-parallel-address", "127.0.0.1"], "all engines run on this machine"),
    (["--frontend", "swift,swift", "--split", "50/50", "--data-parallel-size", "2", "--data-parallel-size-local", "1",
      "--data-parallel-address", "127.0.0.1", "--data-parallel-hybrid-lb"], "all engines run on this machine"),
    (["--frontend", "swift,swift", "--split", "50/50", "--data-parallel-address", "127.0.0.1", "--headless"],
     "all engines run on this machine"),
    (["--frontend", "swift,swift", "--split", "50/50", "--uds", "/tmp/x.sock"], "unix socket cannot be shared"),
    (["--frontend", "swift,swift", "--split", "50/50", "--api-server-count", "2"], "exclude each other"),
])
def test_impossible_splits_are_refused(args, text):
    result = subprocess.run([BINARY, "mock", "--tokenizer", str(DEFAULT_MODEL), *args], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2 and text in result.stderr, result
