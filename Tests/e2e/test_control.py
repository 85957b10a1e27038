"""The supervisor's control socket: status and drain, with real processes and the scripted engine."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading

import pytest

import http_client
import processes
from foreign import each_foreign
from load import BackgroundStream
from server import BINARY, DEFAULT_MODEL, command, status, wait_until

FAKE_FRONTEND = os.path.join(os.path.dirname(__file__), "data", "fake_frontend.py")


@pytest.fixture
def fake(start_server):
    return start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--frontend", FAKE_FRONTEND)


# ---- status ----


def test_status(fake):
    report = status(fake)
    assert report["state"] == "serving" and report["pid"] == fake.process.pid
    assert report["address"].endswith(f":{fake.port}") and report["model"] == "mock"
    by_role = {process["role"]: process for process in report["processes"]}
    assert by_role["engine"]["name"] == "EngineCore" and by_role["engine"]["pid"] == fake.child("engine")
    assert by_role["frontend"]["pid"] == int(http_client.request(fake.port, "GET", "/").body)
    for process in by_role.values():
        assert process["state"] == "running" and process["restarts"] == 0 and 0 <= process["uptime_seconds"] < 60
    text = command(fake, "status").stdout
    assert f"serving at http://127.0.0.1:{fake.port}" in text and "EngineCore" in text and "RESTARTS" in text


def test_status_counts_restarts(fake):
    os.kill(int(http_client.request(fake.port, "GET", "/").body), signal.SIGKILL)
    assert wait_until(lambda: "The frontend is back" in fake.log(), 10)
    assert {process["role"]: process["restarts"] for process in status(fake)["processes"]} == {"frontend": 1, "engine": 0}


def test_processes_are_known_by_their_roles(start_mock):
    """In `ps` by vLLM's titles, and in the log by a prefix on every line."""
    server = start_mock()
    titles = {process["name"]: processes.command(process["pid"]).split()[0] for process in status(server)["processes"]}
    assert titles == {"SwiftFrontend": "VLLM::APIServer", "EngineCore": "VLLM::EngineCore"}
    pids = {process["name"]: process["pid"] for process in status(server)["processes"]} | {"Supervisor": server.process.pid}
    for name, pid in pids.items():
        assert f"({name} pid={pid}) " in server.log()


def test_socket_is_private(fake):
    [path] = fake.scratch.rglob("control.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_which_one_is_meant(start_server):
    servers = [start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--frontend", FAKE_FRONTEND) for _ in range(2)]
    scope = os.environ | {"VLLM_RPC_BASE_PATH": str(servers[0].scratch), "XDG_RUNTIME_DIR": str(servers[1].scratch)}

    def run(*args):
        return subprocess.run([BINARY, "status", "--json", *args], capture_output=True, text=True, timeout=20, env=scope)

    for server in servers:
        assert json.loads(run("--port", str(server.port)).stdout)["pid"] == server.process.pid
    unclear = run()
    assert unclear.returncode == 2 and all(str(server.process.pid) in unclear.stderr for server in servers)
    unknown = run("--port", "1")
    assert unknown.returncode == 1 and "no vllm-engine is running with port 1" in unknown.stderr


# ---- drain ----


def test_drain_finishes_open_requests(start_mock):
    server = start_mock()
    stream = BackgroundStream(server, 100)
    stream.wait_for_tokens(5)
    result = command(server, "drain", "--timeout", "60")
    assert result.returncode == 0 and result.stdout.split() == ["draining", "stopped"], result
    events = stream.finish()
    assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    assert server.wait_exit(5) == 0
    assert "Stopped by the drain command" in server.log().splitlines()[-1]
    server.assert_gone()


def test_drain_ends_what_does_not_finish_in_time(start_mock):
    server = start_mock()
    stream = BackgroundStream(server, 4000)
    stream.wait_for_tokens(5)
    assert command(server, "drain", "--timeout", "0.3").returncode == 0
    events = stream.finish()
    assert events[-1] == "[DONE]" and "shutting down" in events[-2]
    assert server.wait_exit(5) == 0
    server.assert_gone()


def test_new_requests_get_503_while_a_foreign_frontend_finishes(start_server):
    """It does not accept any more; the supervisor answers in its place until the last request has its answer."""
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--frontend", FAKE_FRONTEND, "--shutdown-timeout", "30",
                          environment={"FAKE_FRONTEND": "drains"})
    held = socket.create_connection(("127.0.0.1", server.port), 30)
    held.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
    # The frontend accepts in order, so it has the held request once it answers this one.
    assert server.get("/health").status == 200
    server.process.send_signal(signal.SIGTERM)
    seen = []

    def refused():
        seen.append(server.get("/health/ready"))
        return seen[-1].status == 503

    assert wait_until(refused, 10), seen
    for answer in [seen[-1]] + [server.post("/v1/completions", {"prompt": "x" * 100_000}) for _ in range(20)]:
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert answer.json()["error"] == {"message": "The server is shutting down.", "type": "ServiceUnavailableError",
                                          "param": None, "code": 503}
    held.sendall(b"x")
    assert held.recv(65536).startswith(b"HTTP/1.1 200 OK")
    held.close()
    assert server.wait_exit(10) == 0
    server.assert_gone()


@each_foreign
def test_vllm_frontends_drain(start_mock, foreign, tmp_path):
    server = start_mock(*foreign, "--max-model-len", "2048", "--shutdown-timeout", "60",
                        environment={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    stream = BackgroundStream(server, 400)
    stream.wait_for_tokens(5)
    server.process.send_signal(signal.SIGTERM)
    seen = []

    def refused():
        seen.append(server.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 1}))
        return seen[-1].status == 503

    assert wait_until(refused, 5), seen
    assert seen[-1].headers["retry-after"] == "1" and {answer.status for answer in seen} <= {200, 503}
    assert [server.get("/health").status for _ in range(20)] == [503] * 20
    events = stream.finish()
    assert events[-1] == "[DONE]" and not any('"error"' in event for event in events)
    assert server.wait_exit(15) == 0
    server.assert_gone()


def test_signal_cuts_a_drain_short(start_mock):
    server = start_mock()
    stream = BackgroundStream(server, 4000)
    stream.wait_for_tokens(5)
    drain = threading.Thread(target=command, args=(server, "drain", "--timeout", "600"))
    drain.start()
    assert wait_until(lambda: "-> draining" in server.log(), 10)
    assert status(server)["state"] == "draining"
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit(10) in (0, 5)
    stream.finish()
    drain.join(10)
    server.assert_gone()


# ---- usage statistics ----


@pytest.mark.parametrize("forbidden", [None, "VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK", "file"])
def test_usage_statistics_stay_here_and_need_consent(start_server, tmp_path, forbidden):
    folder = tmp_path / "config" / "vllm"
    environment = {"VLLM_CONFIG_ROOT": str(folder)}
    if forbidden == "file":
        folder.mkdir(parents=True)
        (folder / "do_not_track").touch()
    elif forbidden:
        environment[forbidden] = "1"
    words = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--frontend", FAKE_FRONTEND]
    server = start_server(*words, "--report-usage-stats", environment=environment)
    file = folder / "usage_stats.json"
    if forbidden:
        assert not file.exists() and "No usage statistics are kept" in server.log()
        return
    [record] = map(json.loads, file.read_text().splitlines())
    assert record["context"] == "OPENAI_API_SERVER" and record["model_architecture"] == "mock"
    assert record["num_cpu"] == os.cpu_count() and record["total_memory"] > 1 << 20
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # A second service adds its line; one that was not asked does not.
    for options, lines in [(["--report-usage-stats"], 2), ([], 2)]:
        start_server(*words, *options, environment=environment)
        assert len(file.read_text().splitlines()) == lines
