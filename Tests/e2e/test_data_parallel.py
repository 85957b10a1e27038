"""Several engines behind one port, on one machine and on several; loopback stands in for the network."""

import concurrent.futures
import os
import re
import signal
import subprocess

import pytest

import processes
from server import BINARY, DEFAULT_MODEL, wait_until

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


def test_headless_engines_work_for_the_first_node(start_server):
    port = str(processes.free_port())
    deployment = ["--data-parallel-size", "3", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port]
    first = start_server(*MOCK, *deployment, "--data-parallel-size-local", "1", wait=False)
    headless = start_server(
        *MOCK, *deployment, "--data-parallel-size-local", "2", "--data-parallel-start-rank", "1", "--headless", wait=False)
    first.wait_ready()
    complete_many(first)
    assert_spread(first, range(3), 48)
    # A node without engines of its own is fine too, but a headless one ends with its engine.
    os.kill(child(headless, r"--engine-index 2"), signal.SIGKILL)
    assert headless.wait_exit(15) == 1
    assert "EngineCore_DP2" in headless.log().strip().splitlines()[-1]
    headless.assert_gone()


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
    (["--data-parallel-size", "2", "--data-parallel-external-lb"], "only mixture-of-experts models"),
    (["--data-parallel-size", "2", "--data-parallel-rank", "1"], "only mixture-of-experts models"),
])
def test_contradictions_are_refused(options, reason):
    result = subprocess.run([BINARY, *MOCK, *options], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert reason in result.stderr, result.stderr
