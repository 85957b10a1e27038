"""Several engines behind one port, on one machine and on several; loopback stands in for the network."""

import concurrent.futures
import os
import re
import signal
import subprocess

import pytest

import http_client
import processes
from foreign import RUST, needs_rust
from load import BackgroundStream
from server import BINARY, DEFAULT_MODEL, command, status, wait_until
from test_swap import Requests, frontends

MOCK = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--mock-itl-ms", "2"]
TOKENS = 8


def complete(server, **fields):
    body = {"model": "m", "prompt": "hello", "max_tokens": TOKENS, "ignore_eos": True} | fields
    answer = server.post("/v1/completions", body)
    assert answer.status == 200, answer.body
    return answer.json()


def complete_many(server, count=48):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: complete(server), range(count)))


def finished_by_engine(server):
    """Requests that ended by their length, by engine rank."""
    page = server.get("/metrics").body.decode()
    pattern = re.compile(r'vllm:request_success_total\{engine="(\d+)",finished_reason="length".*\} (\d+)')
    return {int(rank): int(count) for rank, count in pattern.findall(page) if int(count)}


def child(server, pattern):
    return next(pid for pid in processes.descendants(server.process.pid) if re.search(pattern, processes.command(pid)))


def assert_spread(server, ranks, sent):
    assert wait_until(lambda: sum(finished_by_engine(server).values()) == sent, 10)
    shares = finished_by_engine(server)
    assert set(shares) == set(ranks), shares
    # 16 at a time: even the least loaded engine has its share.
    assert min(shares.values()) >= sent / len(ranks) / 2, shares


@pytest.mark.parametrize("count, servers", [(2, 1), (4, 1), (2, 2)])
def test_requests_are_spread_over_all_engines(start_server, count, servers):
    server = start_server(*MOCK, "--data-parallel-size", str(count), "--api-server-count", str(servers))
    complete_many(server)
    assert_spread(server, range(count), 48)


def by_engine(server, name):
    page = server.get("/metrics").body.decode()
    return {int(rank): float(value) for rank, value in
            re.findall(rf'^{name}\{{engine="(\d+)",model_name="m"\}} (\S+)$', page, re.MULTILINE)}


def test_steps_of_every_engine_are_counted_once(start_server):
    """Two event loops share the outputs of a step, and two frontends the steps of an engine."""
    for servers in (1, 2):
        server = start_server(*MOCK, "--data-parallel-size", "2", "--api-server-count", str(servers),
                              environment={"VLLM_SWIFT_EVENT_LOOPS": "2"})
        complete_many(server)
        assert_spread(server, range(2), 48)
        prompt, generated = by_engine(server, "vllm:prompt_tokens_total"), by_engine(server, "vllm:generation_tokens_total")
        sums = by_engine(server, "vllm:iteration_tokens_total_sum")
        assert sums == {rank: prompt[rank] + generated[rank] for rank in (0, 1)} and sum(generated.values()) == 48 * TOKENS
        if servers == 1:
            # One at a time on one engine: as many steps as tokens.
            before = by_engine(server, "vllm:iteration_tokens_total_count")
            server.post("/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 5, "ignore_eos": True},
                        headers={"X-data-parallel-rank": "1"})
            after = by_engine(server, "vllm:iteration_tokens_total_count")
            assert after == {0: before[0], 1: before[1] + 5}
        server.stop()


def test_the_embedded_model_answers_the_same_from_every_engine(start_server):
    server = start_server("--data-parallel-size", "2", "--served-model-name", "m", "--max-model-len", "512")
    answers = [complete(server, temperature=0)["choices"][0]["text"] for _ in range(2)]
    answers += [answer["choices"][0]["text"] for answer in complete_many(server, 4)]
    answers += [complete(server, temperature=0)["choices"][0]["text"] for _ in range(2)]
    assert len({answers[0], answers[1], *answers[-2:]}) == 1
    assert set(finished_by_engine(server)) == {0, 1}


@pytest.mark.parametrize("name, pattern", [
    ("DPCoordinator", r"dp-coordinator"), ("EngineCore_DP1", r"^VLLM::EngineCore_DP1 ")])
def test_the_death_of_a_part_is_the_end_of_the_whole(start_server, name, pattern):
    server = start_server(*MOCK, "--data-parallel-size", "2")
    os.kill(child(server, pattern), signal.SIGKILL)
    assert server.wait_exit(15) == 1
    server.assert_gone()
    last = server.log().strip().splitlines()[-1]
    assert name in last and "SIGKILL" in last, last


@pytest.fixture
def two_nodes(start_server):
    """Engine 0 behind the port, engines 1 and 2 headless."""
    def start(first_options=(), headless_options=()):
        port = str(processes.free_port())
        deployment = [*MOCK, "--data-parallel-size", "3", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port]
        first = start_server(*deployment, "--data-parallel-size-local", "1", *first_options, wait=False)
        headless = start_server(*deployment, "--data-parallel-size-local", "2", "--data-parallel-start-rank", "1", "--headless",
                                *headless_options, wait=False)
        return first.wait_ready(), headless
    return start


def kill_remote_engine(headless):
    os.kill(child(headless, r"--engine-index 2"), signal.SIGKILL)


def test_headless_engines_work_for_the_first_node(two_nodes):
    first, headless = two_nodes()
    complete_many(first)
    assert_spread(first, range(3), 48)
    kill_remote_engine(headless)
    for node, name in ((headless, "EngineCore_DP2"), (first, "engine 2 of another machine")):
        assert node.wait_exit(15) == 1
        assert name in node.log().strip().splitlines()[-1]
        node.assert_gone()


def test_headless_engines_come_back(two_nodes):
    first, headless = two_nodes(["--restart", "on-failure"], ["--restart", "on-failure"])
    complete_many(first)
    for _ in range(2):
        back = first.log().count("The engine is back")
        kill_remote_engine(headless)
        assert wait_until(lambda: first.log().count("The engine is back") > back, 30)
        sent = sum(finished_by_engine(first).values())
        before = finished_by_engine(first).get(2, 0)
        complete_many(first)
        assert wait_until(lambda: sum(finished_by_engine(first).values()) == sent + 48, 10)
        assert finished_by_engine(first)[2] > before
    assert "starting another after" in headless.log()


def test_streams_of_a_lost_headless_engine_end(two_nodes):
    first, headless = two_nodes(["--restart", "on-failure"], ["--restart", "on-failure"])
    streams = [BackgroundStream(first, 1500) for _ in range(9)]
    for stream in streams:
        stream.wait_for_tokens(2)
    kill_remote_engine(headless)
    endings = [stream.finish()[-2:] for stream in streams]
    assert all(last == "[DONE]" for _, last in endings)
    assert sum("error" in event for event, _ in endings) == 3, "those of the other engines go on"
    assert wait_until(lambda: "The engine is back" in first.log(), 30)


def test_headless_restart_needs_the_first_nodes_consent(two_nodes):
    first, headless = two_nodes([], ["--restart", "on-failure"])
    kill_remote_engine(headless)
    assert headless.wait_exit(15) == 1 and first.wait_exit(15) == 1
    assert "says that the service was started without --restart on-failure" in headless.log().strip().splitlines()[-1]
    assert "without --restart on-failure" in first.log().strip().splitlines()[-1]


def test_headless_restart_without_an_answer(two_nodes):
    """As with vLLM's launcher, which is done with the handshake."""
    first, headless = two_nodes(["--restart", "on-failure"], ["--restart", "on-failure"])
    first.process.send_signal(signal.SIGSTOP)
    try:
        kill_remote_engine(headless)
        assert headless.wait_exit(20) == 1
        assert "takes every engine once" in headless.log().strip().splitlines()[-1]
    finally:
        first.process.send_signal(signal.SIGCONT)


def test_headless_node_may_be_started_anew(two_nodes, start_server):
    first, headless = two_nodes(["--restart", "on-failure"], [])
    words = headless.args[1:headless.args.index("--host")]
    headless.process.kill()
    headless.process.wait(10)
    headless.assert_gone()
    start_server(*words, wait=False)
    assert wait_until(lambda: "The engine is back" in first.log(), 30)
    before = finished_by_engine(first)
    complete_many(first)
    assert wait_until(lambda: set(finished_by_engine(first)) == {0, 1, 2} and finished_by_engine(first) != before, 10)


@needs_rust
def test_headless_engines_work_for_a_launcher_of_vllm(start_server, tmp_path):
    """It takes words that it does not expect for a broken handshake, and closes the port when all engines are ready."""
    port, handshake_port = processes.free_port(), str(processes.free_port())
    deployment = ["--data-parallel-size", "2", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", handshake_port]
    log = (tmp_path / "head.log").open("w+")
    head = subprocess.Popen([RUST, "serve", str(DEFAULT_MODEL), "--port", str(port), "--served-model-name", "m", *deployment,
                             "--data-parallel-size-local", "0", "--max-model-len", "2048"], stdout=log, stderr=subprocess.STDOUT)
    try:
        headless = start_server(*MOCK, *deployment, "--headless", wait=False)

        def ready():
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            try:
                return http_client.request(port, "GET", "/health").status == 200
            except OSError:
                return False

        assert wait_until(ready, 30), headless.log()
        body = {"model": "m", "prompt": "hello", "max_tokens": TOKENS, "ignore_eos": True}
        for _ in range(8):
            answer = http_client.request(port, "POST", "/v1/completions", body)
            assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == TOKENS, answer
        assert wait_until(lambda: headless.log().count("is closed: it is dialled again") == 2, 10), headless.log()
        headless.stop()
    finally:
        head.kill()
        head.wait()
        log.close()


def test_frontend_comes_back_before_remote_engines(two_nodes):
    first, _ = two_nodes()
    os.kill(first.child("frontend"), signal.SIGKILL)
    assert wait_until(lambda: "The frontend is back" in first.log(), 20)
    complete_many(first)
    assert_spread(first, range(3), 48)


def test_swap_with_remote_engines(two_nodes):
    first, _ = two_nodes()
    load = Requests(first)
    load.wait_for_more(20)
    for _ in range(2):
        before = frontends(first)["frontend"]
        result = command(first, "swap", "--frontend", "swift")
        assert result.returncode == 0, result.stderr + first.log()[-3000:]
        assert frontends(first)["frontend"] != before
        load.wait_for_more(20)
    assert load.stop() == []
    assert set(finished_by_engine(first)) == {0, 1, 2}


def test_a_frontend_that_binds_its_own_ports_tells_engines_where(start_server):
    port = str(processes.free_port())
    deployment = ["--data-parallel-size", "2", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port,
                  "--frontend-version", "0.30"]
    first = start_server(*MOCK, *deployment, "--data-parallel-size-local", "0", "--api-server-count", "2", wait=False)
    start_server(*MOCK, *deployment, "--headless", wait=False)
    first.wait_ready()
    complete_many(first)
    assert_spread(first, range(2), 48)


def test_hybrid_nodes_serve_their_own_engines(start_server):
    port = str(processes.free_port())
    deployment = ["--data-parallel-size", "4", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port,
                  "--data-parallel-size-local", "2"]
    # In this order: the second node waits for the first one.
    second = start_server(*MOCK, *deployment, "--data-parallel-start-rank", "2", wait=False)
    first = start_server(*MOCK, *deployment, "--data-parallel-hybrid-lb", wait=False)
    for server, ranks in ((first, (0, 1)), (second, (2, 3))):
        server.wait_ready()
        complete_many(server)
        assert_spread(server, ranks, 48)


@pytest.mark.parametrize("options, reason", [
    (["--data-parallel-size", "0"], "--data-parallel-size must be"),
    (["--data-parallel-size", "4", "--data-parallel-size-local", "2"], "need --data-parallel-address"),
    (["--headless"], "--headless needs --data-parallel-address"),
    (["--headless", "--data-parallel-address", "h", "--api-server-count", "2"], "exclude each other"),
    # As vLLM 0.32: dense models have no use for it, and it needs a rank, several engines, one of them here.
    (["--data-parallel-size", "2", "--data-parallel-rank", "1", "--data-parallel-address", "h"], "are for mixture-of-experts models"),
    (["--data-parallel-size", "2", "--data-parallel-external-lb"], "needs --data-parallel-rank"),
    (["--data-parallel-external-lb", "--data-parallel-rank", "0"], "needs --data-parallel-size above 1"),
    (["--data-parallel-size", "2", "--data-parallel-rank", "0", "--data-parallel-size-local", "2"], "can only be 1"),
    (["--data-parallel-size", "2", "--data-parallel-rank", "0", "--data-parallel-hybrid-lb"], "exclude each other"),
])
def test_contradictions_are_refused(options, reason):
    result = subprocess.run([BINARY, *MOCK, *options], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert reason in result.stderr, result.stderr
