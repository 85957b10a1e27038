"""The supervisor alone: exit codes, start-up failures, restarts. A scripted frontend stands in for the real ones."""

import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import time

import pytest

import http_client
import processes
from server import BINARY, DEFAULT_MODEL, wait_until

FRONTEND = pathlib.Path(__file__).parent / "data" / "fake_frontend.py"
SEED = int(os.environ.get("VLLM_E2E_SEED", "1"))
START_ROUNDS = int(os.environ.get("VLLM_E2E_START_ROUNDS", "20"))


@pytest.fixture
def start(start_server):
    """Starts the mock engine behind the scripted frontend."""

    def start(*args, frontend="", engine=None, environment=None, **kwargs):
        words = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--frontend", str(FRONTEND), *args]
        if engine:
            words += ["--engine-binary", str(engine)]
        return start_server(*words, environment={"FAKE_FRONTEND": frontend} | (environment or {}), **kwargs)

    return start


@pytest.fixture
def script(tmp_path):
    def script(text):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return script


def frontend_pid(server):
    return int(http_client.request(server.port, "GET", "/", timeout=10).body)


def kill_frontend(server):
    """Kills it and waits until it is gone, so that it cannot take one more connection along. Returns its pid."""
    pid = frontend_pid(server)
    known = processes.descendants(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not processes.alive(known), 5)
    return pid


def assert_ended(server, code, *texts, deadline=10):
    assert server.wait_exit(deadline) == code, server.log()[-3000:]
    last = server.log().strip().splitlines()[-1]
    for text in texts:
        assert text in last, last
    server.assert_gone()


# ---- the table of exit codes ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_0_signal(start, number):
    server = start()
    server.process.send_signal(number)
    assert_ended(server, 0, "Stopped by", signal.Signals(number).name)


def test_1_engine_died(start):
    server = start()
    os.kill(server.child("engine"), signal.SIGKILL)
    assert_ended(server, 1, "EngineCore", "signal 9 (SIGKILL)")


def test_1_engine_ended_with_status_0(start):
    """Nobody asked it to end, so this is a failure whatever it says."""
    server = start()
    os.kill(server.child("engine"), signal.SIGTERM)
    assert_ended(server, 1, "EngineCore", "exit status 0")


def test_1_frontend_died(start):
    server = start("--restart", "never")
    os.kill(frontend_pid(server), signal.SIGKILL)
    assert_ended(server, 1, "Frontend", "signal 9 (SIGKILL)")


@pytest.mark.parametrize("args, text", [
    (["--max-modl-len", "1"], "--max-model-len"),
    (["--port", "x"], "--port"),
    (["--frontend", str(FRONTEND), "/no/such/model"], "/no/such/model does not exist"),
    (["--frontend", "/bin/true", "mock"], "does not look like a frontend"),
])
def test_2_usage(args, text):
    result = subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=10)
    assert result.returncode == 2 and text in result.stderr, result.stderr


def test_3_port_in_use_before_anybody_listens(start):
    """The first server holds the port from its first millisecond on, although its frontend never listens."""
    first = start(frontend="deaf", wait=False)
    assert wait_until(lambda: "Started Frontend" in first.log(), 10)
    second = start(port=first.port, wait=False, environment={"VLLM_RPC_BASE_PATH": str(first.scratch)})
    assert second.wait_exit(5) == 3
    assert f"pid {first.process.pid} (" in second.log() and "still starting" in second.log()
    second.port = processes.free_port()  # the old one belongs to the first


def test_4_engine_fails_while_starting(start, script):
    server = start(engine=script("echo 'ERROR no weights in this folder' >&2; exit 7"), wait=False)
    assert_ended(server, 4, "EngineCore", "before it connected", "exit status 7")
    assert "--- last output of EngineCore" in server.log() and "ERROR no weights in this folder" in server.log()


def test_4_engine_never_connects(start, script):
    server = start(engine=script("exec sleep 100"), wait=False, environment={"VLLM_ENGINE_READY_TIMEOUT_S": "1"})
    assert_ended(server, 4, "not ready after 1 s", "has not connected")


def test_4_frontend_fails_while_starting(start):
    server = start(frontend="exit:2", wait=False)
    assert_ended(server, 4, "Frontend", "exit status 2")
    assert "ERROR the fake frontend was told to fail" in server.log()


def test_5_second_signal_is_immediate(start):
    server = start(frontend="stubborn")
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: "-> stopping" in server.log(), 10)
    time.sleep(0.3)  # the grace has begun and would last seconds
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert_ended(server, 5, "Frontend")
    assert time.monotonic() - begin < 2


# ---- restarts ----


def test_crashed_frontend_is_replaced_on_the_same_port(start):
    server = start()
    engine = server.child("engine")
    before = kill_frontend(server)
    begin = time.monotonic()
    after = frontend_pid(server)  # waits in the socket's backlog, is not refused
    assert after != before and time.monotonic() - begin < 0.5
    assert server.child("engine") == engine
    assert wait_until(lambda: "The frontend is back" in server.log(), 5)


def test_restarts_are_limited(start):
    server = start("--restart-frontend-max", "2/10m")
    for _ in range(3):
        kill_frontend(server)
    assert_ended(server, 1, "restarted 2 times already")


# ---- starting ----


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_struck_at_any_moment_of_the_start(start, number):
    """Seeded moments within the first 150 ms: before bind, while forking, during the handshake, when just ready."""
    r = random.Random(f"{SEED} {number}")
    for _ in range(START_ROUNDS):
        server = start(wait=False)
        time.sleep(r.uniform(0, 0.15))
        server.remember_processes()
        server.process.send_signal(number)
        assert server.wait_exit(5) in (0, -number)
        server.assert_gone()


def test_directory_of_a_dead_run_is_removed(start):
    server = start(wait=False)
    server.process.kill()
    server.wait_exit(5)
    server.assert_gone()
    stale = server.scratch / "vllm-engine-1-1"  # pid 1 did not start one tick after boot
    stale.mkdir()
    (stale / "left.sock").touch()
    other = start(environment={"VLLM_RPC_BASE_PATH": str(server.scratch), "XDG_RUNTIME_DIR": str(server.scratch)})
    assert not stale.exists()
    other.stop()


def test_unix_socket(start):
    server = start("--help", wait=False)
    assert server.wait_exit(5) == 0
    path = str(server.scratch / "http.sock")
    server = start("--uds", path, wait=False, environment={"VLLM_RPC_BASE_PATH": str(server.scratch)})

    def answers():
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                return client.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    assert wait_until(answers, 10), server.log()
    assert wait_until(lambda: f"--unix-socket {path}" in server.log(), 5)
    server.process.send_signal(signal.SIGTERM)
    assert_ended(server, 0)
    assert not os.path.exists(path)


def test_version_is_quick():
    def processor_time():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = processor_time()
    assert subprocess.run([BINARY, "--version"], capture_output=True, timeout=10).stdout.startswith(b"vllm-engine ")
    assert processor_time() - before < 0.05


def test_state_is_shown_on_request(start):
    server = start()
    server.process.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: f"EngineCore pid {server.child('engine')}: still running" in server.log(), 5)
