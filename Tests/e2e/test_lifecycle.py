"""Start and end: signals and crashes at random moments of a load leave nothing behind, a taken port is explained."""

import collections
import http.client
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

import processes
from load import Load
from server import DEFAULT_MODEL, wait_until

SEED = int(os.environ.get("VLLM_E2E_SEED", "1"))
ROUNDS = int(os.environ.get("VLLM_E2E_ROUNDS", "2"))
STREAMS = 50
NO_RESTART = ["--restart", "never"]


def moments(name):
    """Seeded moments, counted in events that the clients have received."""
    r = random.Random(f"{SEED} {name}")
    return [r.randint(STREAMS, 4000) for _ in range(ROUNDS)]


def end_under_load(start_server, moment, strike):
    """Starts a server and 50 streams, strikes at the moment, checks that nothing is left; returns how the streams ended."""
    server = start_server(*NO_RESTART)
    load = Load(server.port, STREAMS).start()
    load.wait_for_all_open()
    load.wait_for_events(moment)
    server.remember_processes()
    strike(server)
    server.assert_gone(deadline=2.0)
    return server, load.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("round", range(ROUNDS))
def test_signal_under_load(start_server, number, round):
    server, endings = end_under_load(start_server, moments(number)[round], lambda server: server.process.send_signal(number))
    assert server.process.returncode == 0, server.log()[-3000:]
    assert "cut" not in endings, collections.Counter(endings)


@pytest.mark.parametrize("round", range(ROUNDS))
def test_killed_engine_under_load(start_server, round):
    """The frontend survives: every open stream gets an error event and [DONE]; then the service ends with a cause."""
    server, endings = end_under_load(start_server, moments("engine")[round], lambda server: os.kill(server.child("engine"), signal.SIGKILL))
    assert "cut" not in endings and "error" in endings, collections.Counter(endings)
    assert server.process.returncode not in (0, None)
    assert "engine" in server.log().strip().splitlines()[-1].lower(), "the last line names the cause"


@pytest.mark.parametrize("round", range(ROUNDS))
def test_killed_frontend_under_load(start_server, round):
    server, _ = end_under_load(start_server, moments("frontend")[round], lambda server: os.kill(server.child("frontend"), signal.SIGKILL))
    assert server.process.returncode not in (0, None)
    assert "frontend" in server.log().strip().splitlines()[-1].lower(), "the last line names the cause"


@pytest.mark.parametrize("round", range(ROUNDS))
def test_killed_supervisor_under_load(start_server, round):
    end_under_load(start_server, moments("supervisor")[round], lambda server: server.process.kill())


def test_signal_while_starting(start_server):
    """A signal before the service is ready ends it as cleanly as one later."""
    server = start_server(wait=False)
    assert wait_until(lambda: len(server.remember_processes()) > 1, 10), "no child was started"
    server.process.send_signal(signal.SIGTERM)
    server.wait_exit(5)
    server.assert_gone()


def test_idle_stop(start_server):
    server = start_server()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit(5) == 0
    server.assert_gone()


def test_shutdown_timeout_lets_requests_finish(start_server):
    server = start_server("--shutdown-timeout", "20")
    load = Load(server.port, 4).start()
    load.wait_for_all_open()
    server.process.send_signal(signal.SIGTERM)
    assert load.join() == ["done"] * 4
    assert server.wait_exit(20) == 0
    server.assert_gone()


def test_a_drain_answers_the_first_request_of_an_open_connection(start_server):
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--mock-itl-ms", "50", "--shutdown-timeout", "120")
    stream = server.stream("/v1/completions", {"prompt": "hello", "max_tokens": 1500, "ignore_eos": True})
    next(iter(stream))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: server.get("/health/ready").status == 503, 10)
    connection.request("POST", "/v1/completions", "{}", {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 503 and answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
    stream.close()  # which is all that the drain waited for
    assert server.wait_exit(20) == 0
    server.assert_gone()


def test_port_in_use_names_the_holder(start_server):
    holder = subprocess.Popen([sys.executable, "-c", "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
                               "print(s.getsockname()[1], flush=True); sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(holder.stdout.readline())
        server = start_server(port=port, wait=False)
        assert server.wait_exit(5) == 3
        log = server.log()
        assert "Started" not in log, "found out before there were children"
        assert str(port) in log and str(holder.pid) in log and "python" in log, log
        assert not processes.alive(server.known)
        assert not list(server.scratch.iterdir())
    finally:
        holder.stdin.close()
        holder.wait(10)
        server.port = None  # it belonged to the holder


def test_two_servers_side_by_side(start_server):
    first, second = start_server(), start_server()
    for server in (first, second):
        assert "Hello!" in server.chat("Hello").json()["choices"][0]["message"]["content"]
    first.stop()
    assert second.chat("Hello").status == 200


def test_children_die_with_the_terminal(start_server):
    """Closing the terminal (SIGHUP) ends the service too."""
    server = start_server()
    server.process.send_signal(signal.SIGHUP)
    server.wait_exit(10)
    server.assert_gone()


def test_hung_engine_fails_readiness_and_recovers(start_server):
    """A stopped engine is alive for vLLM's /health; readiness and metric tell, and everything goes on after SIGCONT."""
    server = start_server("--engine-hang-timeout", "1")
    assert [server.get(path).status for path in ("/health/live", "/health/ready", "/health/startup")] == [200] * 3
    load = Load(server.port, 2).start()
    load.wait_for_all_open()
    engine = server.child("engine")
    os.kill(engine, signal.SIGSTOP)
    try:
        assert wait_until(lambda: server.get("/health/ready").status == 503, 10)
        answer = server.get("/health/ready")
        assert "hangs" in answer.json()["error"]["message"] and answer.headers["retry-after"]
        assert server.get("/health").status == 200 and server.get("/health/live").status == 200
        assert server.metric("vllm:engine_hung") == 1 and server.metric("vllm:engine_last_progress_seconds") > 1
    finally:
        os.kill(engine, signal.SIGCONT)
    assert wait_until(lambda: server.get("/health/ready").status == 200, 10)
    assert load.join() == ["done"] * 2 and server.metric("vllm:engine_hung") == 0


def test_requests_at_a_hung_engine_end_at_their_deadline(start_server):
    """New requests are refused at once; streams stay open with comments until the deadline, then have their last event."""
    server = start_server("--engine-hang-timeout", "1", "--engine-hang-request-deadline", "4", "--sse-keep-alive-interval", "0.3")
    body = {"prompt": "hello", "max_tokens": 4000, "ignore_eos": True, "temperature": 0}
    stream = server.stream("/v1/completions", body)
    lines = iter(stream.answer.readline, b"")
    assert next(lines).startswith(b"data: {")
    whole = []
    plain = threading.Thread(target=lambda: whole.append(server.post("/v1/completions", body)))
    plain.start()
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 2, 10)
    engine = server.child("engine")
    os.kill(engine, signal.SIGSTOP)
    try:
        assert wait_until(lambda: server.get("/health/ready").status == 503, 10)
        refused = server.post("/v1/completions", body)
        assert refused.status == 503 and refused.headers["retry-after"] == "5" and "hangs" in refused.json()["error"]["message"]
        rest = [line for line in lines if line.strip()]
        plain.join(20)
    finally:
        os.kill(engine, signal.SIGCONT)
    assert b": keep-alive\n" in rest and rest[-1] == b"data: [DONE]\n"
    error = json.loads(rest[-2].removeprefix(b"data: "))["error"]
    assert error["code"] == 504 and error["type"] == "GatewayTimeoutError" and "has not answered" in error["message"]
    assert whole[0].status == 504 and whole[0].json()["error"]["type"] == "GatewayTimeoutError"
    assert wait_until(lambda: server.get("/health/ready").status == 200, 10)
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 10), "the aborts reached the engine"
    assert server.post("/v1/completions", body | {"max_tokens": 3}).status == 200


def test_long_step_is_no_hang(start_server):
    """The prompt takes several times the timeout to compute, in one step; the heartbeat comes from another thread."""
    server = start_server("--engine-hang-timeout", "0.3", "--engine-hang-request-deadline", "0.3", "--max-num-batched-tokens", "8192", "--no-enable-prefix-caching",
                          "--threads", "1", "--max-num-seqs", "64")
    done = threading.Event()
    seen = []

    def probe():
        while not done.is_set():
            seen.append(server.get("/health/ready").status)
            time.sleep(0.02)

    prober = threading.Thread(target=probe)
    prober.start()
    prompts = [f"{number} " + "hello " * 240 for number in range(64)]
    answer = server.post("/v1/completions", {"prompt": prompts, "max_tokens": 1})
    done.set()
    prober.join()
    assert answer.status == 200 and set(seen) == {200}


def test_long_wait_for_the_first_token_is_no_hang(start_server):
    """An engine that does not compute either, as one whose work is done by another device."""
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--mock-ttft-ms", "2000", "--engine-hang-timeout", "0.3",
                          "--engine-hang-request-deadline", "0.3")
    stream = server.stream("/v1/completions", {"prompt": "hello", "max_tokens": 3, "ignore_eos": True})
    assert stream.chunks()[-1]["choices"][0]["finish_reason"] == "length"
    assert "hangs" not in server.log()


def test_how_far_loading_is(start_server, tmp_path):
    """As the engine notes it; here one that gets stuck."""
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nfor word; do\n"
                      "  [ \"$before\" = --progress-fd ] && printf '+packing weights' >/proc/self/fd/$word  # + is 43\n"
                      "  before=$word\ndone\nexec sleep 1000\n")
    engine.chmod(0o755)
    server = start_server("mock", "--engine-binary", str(engine), wait=False)

    def tells():
        try:
            return b"packing weights" in server.get("/health/ready").body
        except OSError:
            return False

    assert wait_until(tells, 20), server.log()
    answer = server.get("/health/ready")
    assert answer.status == 503 and answer.json()["error"]["message"] == "The engine is still starting: packing weights, 43 %."
    answer = server.get("/health/startup")
    assert answer.status == 503 and (answer.json()["phase"], answer.json()["percent"]) == ("packing weights", 43)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit(10) == 0


def test_the_engine_notes_that_it_is_ready(server):
    pid = server.child("frontend")
    with open(f"/proc/{pid}/environ", "rb") as file:
        number = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if entry)[b"VLLM_ENGINE_PROGRESS_FD"].decode()
    with open(f"/proc/{pid}/fd/{number}", "rb") as file:
        assert file.read().rstrip(b"\0") == b"\x64ready"
    assert "phase" not in server.get("/health/startup").json()


def test_routes_are_listed_at_the_start(server):
    line = next(line for line in server.log().splitlines() if " routes: " in line)
    listed = set(line.split(" routes: ")[1].split(", "))
    documented = server.get("/openapi.json").json()["paths"]
    assert listed >= {" ".join([*map(str.upper, methods), path]) for path, methods in documented.items() if len(methods) == 1}
    assert "GET /health" in listed and "POST /v1/chat/completions" in listed


def test_a_prefix_that_a_proxy_leaves_on_is_cut_off(start_server):
    server = start_server("mock", "--root-path", "/behind/it")
    for path in ("/v1/models", "/behind/it/v1/models"):
        assert server.get(path).status == 200, path
    assert server.get("/elsewhere/v1/models").status == 404


def test_descriptors_are_as_many_as_allowed(start_server):
    """Each client is one; a soft limit of some hundreds is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        server = start_server("mock")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for pid in (server.process.pid, server.child("frontend")):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] >= min(65535, hard)


def test_a_request_that_fails_in_the_engine_is_no_engine_that_fails(start_server):
    server = start_server("mock", "--mock-fault", "error-request=2")
    body = {"prompt": "hello", "max_tokens": 3, "ignore_eos": True}
    pids = [server.child(role) for role in ("frontend", "engine")]
    assert server.post("/v1/completions", body).status == 200
    failed = server.post("/v1/completions", body)
    assert failed.status == 500 and failed.json()["error"]["code"] == 500, failed.body
    assert server.post("/v1/completions", body).status == 200
    stream = server.stream("/v1/completions", body)  # fails before its first token, so there is still a status to give
    assert stream.status == 500 and json.loads(stream.answer.read())["error"]["code"] == 500
    stream.close()
    assert server.post("/v1/completions", body).status == 200
    assert server.get("/health").status == 200
    assert [server.child(role) for role in ("frontend", "engine")] == pids
