"""`--restart on-failure`: an engine that dies is replaced, the port stays open, and every stream has its end."""

import json
import os
import signal
import threading

import pytest

import processes
from foreign import each_foreign
from load import BackgroundStream
from server import ROOT, status, wait_until

ENGINE = ROOT / "Engine/build/blas-engine"
RESTART = ["--restart", "on-failure"]
PROMPT = {"model": "m", "prompt": "hello", "max_tokens": 3, "ignore_eos": True}


def answers(server):
    try:
        return server.post("/v1/completions", PROMPT, timeout=10).status == 200
    except OSError:
        return False


def kill_engine(server):
    pid = server.child("engine")
    known = processes.descendants(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not processes.alive(known), 5)
    return pid


def ending(stream):
    events = stream.finish()
    assert events[-1] == "[DONE]"
    return json.loads(events[-2])


def back(server, times=1):
    return wait_until(lambda: server.log().count("The engine is back") >= times, 20)


def test_engine_comes_back_and_the_port_stays_open(start_mock):
    server = start_mock(*RESTART)
    frontend = server.child("frontend")
    for round in (1, 2, 3):
        stream = BackgroundStream(server, 4000)
        stream.wait_for_tokens(3)
        old = kill_engine(server)
        assert "error" in ending(stream)
        assert back(server, round), server.log()[-3000:]
        assert answers(server)
        assert server.child("engine") != old and server.child("frontend") == frontend
    by_role = {process["role"]: process for process in status(server)["processes"]}
    assert by_role["engine"]["restarts"] == 3 and by_role["frontend"]["restarts"] == 0
    assert status(server)["state"] == "serving"


def test_503_while_the_engine_is_away(start_mock, tmp_path):
    """The successor waits for a file before it starts, so that the time between is long enough to look at."""
    gate = tmp_path / "gate"
    gate.touch()
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\nwhile ! [ -e {gate} ]; do sleep 0.02; done\nexec {ENGINE} \"$@\"\n")
    engine.chmod(0o755)
    server = start_mock(*RESTART, "--engine-binary", str(engine))
    gate.unlink()
    waiting = []
    plain = threading.Thread(target=lambda: waiting.append(server.post("/v1/completions", PROMPT | {"max_tokens": 4000})))
    plain.start()
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 1, 10)
    kill_engine(server)
    plain.join(10)
    for answer in (waiting[0], server.post("/v1/completions", PROMPT), server.get("/health")):
        assert answer.status == 503 and answer.headers["retry-after"] == "1", answer
        assert answer.json()["error"]["type"] == "ServiceUnavailableError"
    assert status(server)["state"] == "engine lost"
    gate.touch()
    assert back(server)
    assert answers(server) and server.get("/health").status == 200


def test_restarts_are_limited(start_mock):
    server = start_mock(*RESTART, "--restart-max", "2/10m")
    for round in (1, 2):
        kill_engine(server)
        assert back(server, round)
    stream = BackgroundStream(server, 4000)
    stream.wait_for_tokens(3)
    kill_engine(server)
    assert "error" in ending(stream)
    assert server.wait_exit(10) == 1
    assert "engines were restarted 2 times already" in server.log().strip().splitlines()[-1]
    server.assert_gone()


def test_engine_that_cannot_start_again_ends_the_service(start_mock, tmp_path):
    """Each failed start counts; between them the pause grows."""
    once = tmp_path / "started"
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\nif [ -e {once} ]; then echo 'ERROR disk is gone' >&2; exit 9; fi\ntouch {once}\n"
                      f"exec {ENGINE} \"$@\"\n")
    engine.chmod(0o755)
    server = start_mock(*RESTART, "--restart-max", "3/10m", "--engine-binary", str(engine))
    kill_engine(server)
    assert server.wait_exit(15) == 1
    assert "exit status 9" in server.log().strip().splitlines()[-1] and "ERROR disk is gone" in server.log()
    assert "after 0 ms (1 of 3" in server.log() and "after 250 ms (2 of 3" in server.log() and "after 500 ms (3 of 3" in server.log()
    server.assert_gone()


def test_frontend_and_engine_die_together(start_mock):
    server = start_mock(*RESTART)
    os.kill(server.child("frontend"), signal.SIGKILL)
    os.kill(server.child("engine"), signal.SIGKILL)
    assert back(server), server.log()[-3000:]
    assert answers(server)


def test_one_of_two_engines_dies(start_mock):
    """The other one goes on with its requests and takes new ones meanwhile."""
    server = start_mock(*RESTART, "--data-parallel-size", "2")
    streams = [BackgroundStream(server, 300) for _ in range(2)]
    for stream in streams:
        stream.wait_for_tokens(3)
    kill_engine(server)
    assert answers(server) and server.get("/health").status == 200
    endings = [ending(stream) for stream in streams]
    assert sum("error" in last for last in endings) == 1, endings
    assert back(server)
    pids = [process["pid"] for process in status(server)["processes"] if process["role"] == "engine"]
    # Both get requests again: simultaneous ones are spread.
    streams = [BackgroundStream(server, 4000) for _ in range(2)]
    for stream in streams:
        stream.wait_for_tokens(3)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert all("error" in ending(stream) for stream in streams)
    assert back(server, 2) and answers(server)


def test_stop_while_the_engine_is_away(start_mock, tmp_path):
    server = start_mock(*RESTART)
    kill_engine(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit(10) == 0
    server.assert_gone()


@pytest.mark.parametrize("args, text", [
    (["--restart-max", "5/10m"], "--restart-max needs --restart on-failure"),
    (["--restart", "on-failure", "--restart-max", "often"], "--restart-max"),
])
def test_usage(start_server, args, text):
    server = start_server(*args, wait=False)
    assert server.wait_exit(10) == 2 and text in server.log()
    server.assert_gone()


@each_foreign
def test_foreign_frontend_is_replaced_with_the_engine(start_mock, foreign, tmp_path):
    """vLLM's frontends take the death for their own: the supervisor answers while both start again."""
    server = start_mock(*RESTART, *foreign, "--max-model-len", "2048",
                        environment={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    for round in (1, 2):
        stream = BackgroundStream(server, 1000)
        stream.wait_for_tokens(3)
        kill_engine(server)
        events = stream.finish()
        assert any('"error"' in event for event in events[-2:]), events[-2:]
        refused = []

        def between():
            try:
                answer = server.get("/health", timeout=30)
            except OSError as error:  # a connection that the old frontend took with it
                answer = error
            refused.append(answer)
            return getattr(answer, "status", None) == 200

        assert wait_until(between, 120), server.log()[-3000:]
        own = [answer for answer in refused if getattr(answer, "headers", {}).get("retry-after")]
        assert own and own[0].status == 503 and own[0].json()["error"]["type"] == "ServiceUnavailableError", refused
        assert back(server, round), server.log()[-3000:]
        assert answers(server)
