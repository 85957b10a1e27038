"""Several frontend processes on one port: requests reach all of them, and every page of numbers is about all of them."""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading

import pytest

import http_client
import processes
from server import BINARY, DEFAULT_MODEL, wait_until

TOKENS = 4


@pytest.fixture
def service(start_server):
    return start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--api-server-count", "3")


def test_processes_can_be_told_apart(service):
    titles = sorted(processes.command(pid).split()[0] for pid in frontends(service))
    assert titles == [f"VLLM::APIServer_{index}" for index in range(3)]
    for index in range(3):
        assert re.search(rf"^\(SwiftFrontend_{index} pid=\d+\) INFO .*engines are ready", service.log(), re.MULTILINE)


def complete(server, tokens=TOKENS):
    answer = server.post("/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True})
    assert answer.status == 200, answer.body
    return answer.json()["usage"]


def frontends(server):
    return sorted(pid for pid in processes.descendants(server.process.pid)
                  if processes.program(pid) == "vllm-swift")


def answering(server):
    """Pids of the frontends that have answered a completion, out of their log lines."""
    return {int(pid) for pid in re.findall(r"pid=(\d+)\).*POST /v1/completions", server.log())}


def complete_on_all(server):
    """Requests until every frontend has had some; returns how many that took."""
    sent = 0

    def round_of_requests():
        nonlocal sent
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            sent += len(list(pool.map(lambda _: complete(server), range(48))))
        return answering(server) >= set(frontends(server))
    assert wait_until(round_of_requests, 60), f"{answering(server)} of {frontends(server)} answered"
    return sent


def test_metrics_of_any_frontend_are_the_sums_over_all(service):
    sent = complete_on_all(service)
    for _ in range(10):  # some frontend each
        assert service.metric("vllm:request_success_total") == sent
        assert service.metric("vllm:generation_tokens_total") == sent * TOKENS
        assert service.metric("vllm:e2e_request_latency_seconds_count") == sent
        page = service.get("/metrics", headers={"Accept": "text/plain"}).body.decode()
        line = 'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} '
        assert [float(text.removeprefix(line)) for text in page.splitlines() if text.startswith(line)] == [sent]


def test_load_counts_the_streams_of_all_frontends(start_server):
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--api-server-count", "2",
                          "--mock-itl-ms", "20")
    body = {"model": "m", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        streams = list(pool.map(lambda _: server.stream("/v1/completions", body), range(16)))
    for _ in range(8):
        assert server.get("/load").json() == {"server_load": 16}
    for stream in streams:
        stream.close()
    assert wait_until(lambda: server.get("/load").json() == {"server_load": 0}, 10)


def test_the_limit_of_unfinished_requests_is_that_of_all_frontends(start_server):
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--api-server-count", "2",
                          "--mock-itl-ms", "20", "--max-num-queued-reqs", "3")
    body = {"model": "m", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    streams = [server.stream("/v1/completions", body) for _ in range(3)]
    for stream in streams:
        next(iter(stream))  # it runs, so it is counted
    refused = [server.post("/v1/completions", body) for _ in range(24)]
    assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
    page = server.get("/metrics", headers={"Accept": "text/plain"}).body.decode()
    assert 'vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"} 24' in page
    assert 'vllm:admission_rejections_total{model_name="m",reason="max_num_queued_tokens"} 0' in page
    for stream in streams:
        stream.close()
    assert wait_until(lambda: server.post("/v1/completions", body | {"max_tokens": 1}).status == 200, 10)


def test_a_killed_frontend_is_replaced_and_its_counts_stay(service):
    sent = complete_on_all(service)
    before = frontends(service)
    os.kill(before[1], signal.SIGKILL)
    # The others answer all the time: no request fails.
    def replaced():
        nonlocal sent
        complete(service)
        sent += 1
        return set(frontends(service)) != set(before) and len(frontends(service)) == 3
    assert wait_until(replaced, 30)
    successors = set(frontends(service)) - set(before)
    assert len(successors) == 1
    sent += complete_on_all(service)
    assert wait_until(lambda: service.metric("vllm:request_success_total") == sent, 10), \
        (service.metric("vllm:request_success_total"), sent)
    assert service.metric("vllm:generation_tokens_total") == sent * TOKENS
    service.remember_processes()


def test_sigterm_during_streams_ends_all(service):
    body = {"model": "m", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    streams = [service.stream("/v1/completions", body) for _ in range(12)]
    service.remember_processes()
    service.process.send_signal(signal.SIGTERM)
    for stream in streams:
        assert list(stream)[-1] == "[DONE]"
    assert service.wait_exit(15) == 0
    service.assert_gone()


def may_unshare():
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", "-p", "-f", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="needs the right to make a pid namespace")
@pytest.mark.parametrize("options", [["--api-server-count", "2"], ["--frontend", "swift,swift", "--split", "50/50"]], ids=["several", "split"])
def test_as_pid_1_without_a_proc_of_its_own(options):
    """What /proc says about a pid is then about some other process."""
    port, stopped = processes.free_port(), False
    scratch = tempfile.mkdtemp(prefix="e2e-", dir="/tmp")
    service = subprocess.Popen(["unshare", "-p", "-f", "--kill-child", BINARY, "mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name",
                                "m", "--port", str(port), *options], env=os.environ | {"VLLM_RPC_BASE_PATH": scratch},
                               stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(120, service.kill)
    watchdog.start()
    try:
        for line in service.stderr:
            if "Try it" in line:
                [supervisor] = [pid for pid in processes.all_pids() if (processes.stat(pid) or [None])[0] == service.pid]
                body = {"model": "m", "prompt": "hello", "max_tokens": 3, "ignore_eos": True}
                assert http_client.request(port, "POST", "/v1/completions", body).status == 200
                os.kill(supervisor, signal.SIGTERM)
                stopped = True
        assert stopped and service.wait(20) == 0
        assert not os.listdir(scratch)
    finally:
        watchdog.cancel()
        service.kill()
        service.wait(10)
        shutil.rmtree(scratch)


@pytest.mark.parametrize("options, reason", [
    (["--frontend", "rust"], "vLLM's Rust frontend is made to be one process"),
    (["--api-server-count", "0"], "--api-server-count must be from 1 to 64"),
    (["--api-server-count", "65"], "--api-server-count must be from 1 to 64"),
])
def test_what_cannot_be_is_refused(options, reason):
    result = subprocess.run([BINARY, "mock", "--api-server-count", "2", *options], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert reason in result.stderr, result.stderr
