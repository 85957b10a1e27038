"""The supervisor alone: exit codes, start-up failures, restarts. A scripted frontend stands in for the real ones."""

import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
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


def test_the_cause_is_kept_for_orchestrators(start, tmp_path):
    """As Kubernetes makes the file /dev/termination-log for it."""
    file = tmp_path / "cause"
    file.write_text("old, and longer than what will be written here " * 9)
    server = start(environment={"VLLM_ENGINE_TERMINATION_LOG": str(file)})
    os.kill(server.child("engine"), signal.SIGKILL)
    assert_ended(server, 1, "EngineCore", "signal 9 (SIGKILL)")
    assert server.log().strip().splitlines()[-1].endswith(" " + file.read_text())
    result = subprocess.run([BINARY, "/no/such/model"], env=os.environ | {"VLLM_ENGINE_TERMINATION_LOG": str(file)}, capture_output=True)
    assert result.returncode == 2 and file.read_text() == "model folder /no/such/model does not exist (exit code 2)"


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
    second.port = None  # it belongs to the first


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
    server = start("--shutdown-timeout", "3600", frontend="stubborn")
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: "-> draining" in server.log(), 10)
    server.process.send_signal(signal.SIGTERM)
    assert_ended(server, 5, "Frontend")


# ---- restarts ----


def test_crashed_frontend_is_replaced_on_the_same_port(start):
    server = start()
    engine = server.child("engine")
    before = kill_frontend(server)
    assert frontend_pid(server) != before  # waits in the socket's backlog, is not refused
    assert server.child("engine") == engine
    assert wait_until(lambda: "The frontend is back" in server.log(), 5)


def test_restarts_are_limited(start):
    server = start("--restart-frontend-max", "2/10m")
    for _ in range(3):
        kill_frontend(server)
    assert_ended(server, 1, "restarted 2 times already")


# ---- starting ----


def test_under_nohup_a_closed_terminal_ends_nothing(start):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    server.process.send_signal(signal.SIGHUP)
    server.process.send_signal(signal.SIGUSR1)  # is answered after what came before it
    assert wait_until(lambda: "still running" in server.log(), 10)
    assert "SIGHUP" not in server.log() and frontend_pid(server)
    server.stop()


def test_without_standard_descriptors():
    """Their numbers must not go to sockets, on which log lines would then be written."""
    port = processes.free_port()
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", BINARY, "mock", "--tokenizer", str(DEFAULT_MODEL),
                                "--port", str(port)])

    def answers():
        try:
            return http_client.request(port, "GET", "/health", timeout=5).status == 200
        except OSError:
            return False

    try:
        assert wait_until(answers, 20)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)


NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


def nobody_may_run_it():
    return os.geteuid() == 0 and subprocess.run(["test", "-x", BINARY], **NOBODY).returncode == 0


@pytest.mark.skipif(not nobody_may_run_it(), reason="needs root, and a folder that everybody may read")
def test_without_any_privilege():
    """Whoever runs the tests may be allowed to do more than the users are."""
    port, scratch = processes.free_port(), tempfile.mkdtemp(prefix="e2e-", dir="/tmp")
    os.chown(scratch, NOBODY["user"], NOBODY["group"])
    process = subprocess.Popen([BINARY, "mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--port", str(port),
                                "--data-parallel-size", "2"],
                               env=os.environ | {"VLLM_RPC_BASE_PATH": scratch}, stderr=subprocess.PIPE, text=True, **NOBODY)
    try:
        assert any("Try it" in line for line in process.stderr)
        body = {"model": "m", "prompt": "hello", "max_tokens": 5, "ignore_eos": True}
        assert http_client.request(port, "POST", "/v1/completions", body).status == 200
        assert http_client.Stream(port, "/v1/completions", body | {"stream": True}).chunks()
        process.terminate()
        process.stderr.read()
        assert process.wait(10) == 0
        assert not os.listdir(scratch)
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(scratch)


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

    def cost():
        before = processor_time()
        assert subprocess.run([BINARY, "--version"], capture_output=True, timeout=60).stdout.startswith(b"vllm-engine ")
        return processor_time() - before

    # Python's imports alone cost seconds. The best of some: others may slow a processor down.
    assert min(cost() for _ in range(10)) < 0.05


def test_state_is_shown_on_request(start):
    server = start()
    server.process.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: f"EngineCore pid {server.child('engine')}: still running" in server.log(), 5)
