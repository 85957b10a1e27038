"""Waves: the engines of a mixture-of-experts model start and stop together, through the coordinator.

The scripted engine plays the model whose folder `--tokenizer` names. A spy subscribes to what the coordinator tells frontends
and engines.
"""

import json
import os
import re
import subprocess

import msgpack
import pytest
import zmq

import processes
from foreign import each_foreign
from server import BINARY, DEFAULT_MODEL, command, wait_until
from test_data_parallel import assert_spread, child, complete, complete_many

START_WAVE = b"\x02"
SIZE = 3


@pytest.fixture(scope="session")
def experts(tmp_path_factory):
    """The embedded model's folder, but its config.json tells of experts."""
    folder = tmp_path_factory.mktemp("experts")
    for file in DEFAULT_MODEL.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (folder / file.name).symlink_to(file)
    config = json.loads((DEFAULT_MODEL / "config.json").read_text())
    config |= {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
               "moe_intermediate_size": 64, "decoder_sparse_step": 1, "mlp_only_layers": []}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def start(start_server, experts):
    def start(*args, **kwargs):
        return start_server(*mock(experts), *args, **kwargs)
    return start


def mock(experts):
    return ["mock", "--tokenizer", str(experts), "--served-model-name", "m", "--mock-itl-ms", "2", "--data-parallel-size", str(SIZE)]


class Spy:
    """Hears what the coordinator publishes, and can speak to it as a frontend or as an engine."""

    def __init__(self, server):
        words = processes.command(child(server, "dp-coordinator"))
        self.addresses = dict(re.findall(r"--([a-z-]+)-address (ipc\S+)", words))
        # Over TCP only those who are concerned know the ports.
        self.addresses["stats-publish"] = re.search(r"--(?:coordinator|stats-update)-address '?([^ ']+)", server.log())[1]
        self.context = zmq.Context()
        self.frontend = self.subscribe("stats-publish")
        # It is heard from now on: the counts are repeated.
        assert self.receive(self.frontend) is not None
        if "engine-publish" in self.addresses:
            self.engine = self.subscribe("engine-publish")
            assert self.receive(self.engine) == [b"READY"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.destroy(linger=0)

    def subscribe(self, name):
        socket = self.context.socket(zmq.XSUB)
        socket.connect(self.addresses[name])
        socket.send(b"\x01")
        return socket

    @staticmethod
    def receive(socket):
        assert socket.poll(20_000), "the coordinator is silent"
        return socket.recv_multipart()

    def state(self):
        """(wave, running) with the next change of a wave."""
        while True:
            counts, wave, running = msgpack.unpackb(self.receive(self.frontend)[0])
            if counts is None:
                return wave, running

    def start(self):
        """(wave, excluded rank) of the next START_DP_WAVE."""
        while True:
            frames = self.receive(self.engine)
            if frames[0] == START_WAVE:
                return tuple(msgpack.unpackb(frames[1]))

    def first_request(self, rank, wave):
        self.frontend.send(msgpack.packb([rank, wave]))


def stream(server, tokens):
    body = {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True}
    stream = server.stream("/v1/completions", body)
    assert stream.status == 200
    return stream


def test_a_request_starts_the_wave_of_all_and_its_end_pauses_them(start):
    server = start()
    assert server.log().count(f"of {SIZE} in lockstep") == SIZE
    with Spy(server) as spy:
        # Twice: idle engines are woken, and paused again when nobody has anything to do.
        for wave in range(2):
            complete(server)
            started, rank = spy.start()
            assert started == wave and rank in range(SIZE)
            assert [spy.state(), spy.state()] == [(wave, True), (wave + 1, False)]
    complete_many(server)
    assert_spread(server, range(SIZE), 50)


def test_a_wave_lasts_until_the_last_engine_is_idle(start):
    server = start()
    with Spy(server) as spy:
        long = stream(server, 100_000)
        next(iter(long))
        assert spy.state() == (0, True)
        complete_many(server, 12)  # on all engines, some of which are idle again
        # The state is only told when it changes: the next one is the end that follows the client's leaving.
        long.close()
        assert spy.state() == (1, False)


def test_stale_words_about_waves(start):
    server = start()
    with Spy(server) as spy:
        complete(server)
        assert [spy.state(), spy.state()] == [(0, True), (1, False)] and spy.start()[0] == 0
        # A frontend up to 0.32 that has not heard of the end: every engine has to be told, also the one it sent to.
        spy.first_request(rank=1, wave=0)
        assert spy.start() == (1, None)
        # All of them are idle, so that wave is over at once; one that knows the wave excludes the engine it sent to.
        assert spy.state() == (2, False)
        spy.first_request(rank=1, wave=2)
        assert spy.start() == (2, 1)
        # Rank 1 has no request and was not told: only one that it gets takes it along, and ends the wave.
        complete_many(server, SIZE * 4)
        assert wait_until(lambda: spy.state()[1] is False, 20)


def test_a_late_engine_of_a_finished_wave_starts_the_next_one(start):
    """What an engine sends whose START_DP_WAVE crossed the end of that wave changes nothing."""
    server = start()
    with Spy(server) as spy:
        complete(server)
        assert [spy.state(), spy.state()] == [(0, True), (1, False)]
        push = spy.context.socket(zmq.PUSH)
        push.connect(spy.addresses["engine-output"])
        outputs = [1, [], None, 0.0, None, None, None, None]
        push.send(msgpack.packb(outputs[:7] + [0]))  # start_wave 0: over
        push.send(msgpack.packb(outputs[:6] + [0, None]))  # wave_complete 0: known
        complete(server)
        assert [spy.state(), spy.state()] == [(1, True), (2, False)]


def test_a_dense_model_has_no_waves(start_server):
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--data-parallel-size", "2")
    assert "--waves" not in processes.command(child(server, "dp-coordinator"))
    complete(server)
    assert "in lockstep" not in server.log()


@each_foreign
def test_with_a_frontend_of_vllm(start, foreign, tmp_path):
    server = start(*foreign, environment={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    with Spy(server) as spy:
        for wave in range(2):
            complete(server)
            assert spy.start()[0] == wave
            # Up to 0.32 it is the frontend that starts the wave, and of that the others hear nothing.
            assert wait_until(lambda: spy.state() == (wave + 1, False), 20)
    complete_many(server)


def test_one_engine_per_node_with_a_load_balancer_outside(start):
    """External load balancing: every node has a frontend for its one engine; they share the waves of rank 0's coordinator."""
    deployment = ["--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(processes.free_port())]
    nodes = [start(*deployment, "--data-parallel-rank", str(rank), wait=False) for rank in range(SIZE)]
    for node in nodes:
        node.wait_ready()
    with Spy(nodes[0]) as spy:
        for wave, node in enumerate(nodes):
            complete(node)
            assert [spy.state(), spy.state()] == [(wave, True), (wave + 1, False)]


def test_swap_of_frontends_of_waves(start):
    server = start("--api-server-count", "2")
    with Spy(server) as spy:
        complete(server)
        assert [spy.state(), spy.state()] == [(0, True), (1, False)]
    assert command(server, "swap", "--frontend", "swift").returncode == 0
    with Spy(server) as spy:
        # The new frontends have learnt the wave from the coordinator.
        complete(server)
        assert spy.start()[0] == 1 and [spy.state(), spy.state()] == [(1, True), (2, False)]


def test_engines_in_lockstep_end_together(start):
    server = start()
    os.kill(child(server, r"^VLLM::EngineCore_DP1 "), 9)
    assert server.wait_exit(15) == 1
    server.assert_gone()


@pytest.mark.parametrize("options, reason", [
    (["--restart", "on-failure"], "run in lockstep"),
    (["--data-parallel-address", "192.0.2.1"], "the engine of rank 0 cannot listen there"),
])
def test_contradictions_are_refused(experts, options, reason):
    result = subprocess.run([BINARY, "mock", "--tokenizer", str(experts), "--data-parallel-size", "2", *options],
                            capture_output=True, text=True, timeout=20)
    assert result.returncode == 2 and reason in result.stderr, result
