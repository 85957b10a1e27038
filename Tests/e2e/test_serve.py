"""`vllm-swift serve`: the frontend alone, with engines that others start, kill and start again."""

import os
import pathlib
import signal
import subprocess
import threading

import pytest

import http_client
import processes
from server import BINARY, DEFAULT_MODEL, ROOT, wait_until

SWIFT = str(pathlib.Path(BINARY).parent / "vllm-swift")
ENGINE = str(ROOT / "Engine/build/blas-engine")
BODY = {"model": "m", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}


class Service:
    """The frontend and its engines, each a child of the test."""

    def __init__(self, folder, engines=1, environment=None):
        self.port, self.handshake = processes.free_port(), processes.free_port()
        self.log_file = folder / "log.txt"
        self.children = []
        self.frontend = self.start(SWIFT, "serve", str(DEFAULT_MODEL), "--served-model-name", "m", "--port", str(self.port),
                                   "--data-parallel-size", str(engines), "--data-parallel-size-local", "0",
                                   "--handshake-port", str(self.handshake), environment=environment)
        self.engines = [self.start_engine(index) for index in range(engines)]
        assert wait_until(lambda: self.health() == 200, 60), self.log()

    def start(self, *words, environment=None):
        with open(self.log_file, "ab") as log:
            self.children.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                  env=os.environ | {"NO_COLOR": "1"} | (environment or {})))
        return self.children[-1]

    def start_engine(self, index=0):
        return self.start(ENGINE, "--model", "mock", "--handshake-address", f"tcp://127.0.0.1:{self.handshake}",
                          "--engine-index", str(index), "--mock-itl-ms", "20", "--max-model-len", "8192")

    def log(self):
        return self.log_file.read_text(errors="replace")[-5000:]

    def health(self, path="/health"):
        try:
            return http_client.request(self.port, "GET", path, timeout=5).status
        except OSError:
            return None

    def post(self, **fields):
        return http_client.request(self.port, "POST", "/v1/completions", BODY | fields)

    def stream(self):
        """A running stream; the events arrive in the list."""
        stream = http_client.Stream(self.port, "/v1/completions", BODY | {"stream": True})
        events = []
        reader = threading.Thread(target=lambda: events.extend(stream), daemon=True)
        reader.start()
        return events, reader

    def kill(self, engine):
        engine.send_signal(signal.SIGKILL)
        engine.wait(10)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait(10)


@pytest.fixture
def serve(tmp_path):
    services = []

    def start(**kwargs):
        services.append(Service(tmp_path, **kwargs))
        return services[-1]

    yield start
    for service in services:
        service.close()


def running(service, count):
    page = http_client.request(service.port, "GET", "/metrics").body.decode()
    values = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("vllm:num_requests_running{")]
    return sum(values) == count


def assert_both_ended_with_errors(whole, events, reader):
    reader.join(20)
    assert events[-1] == "[DONE]" and '"code":500' in events[-2], events[-2:]
    assert whole[0].status == 500 and whole[0].json()["error"]["type"] == "InternalServerError"


def open_requests(service):
    """One that is streamed and one that is not, both running."""
    events, reader = service.stream()
    whole = []
    plain = threading.Thread(target=lambda: whole.append(service.post()), daemon=True)
    plain.start()
    assert wait_until(lambda: running(service, 2), 20), service.log()
    return whole, plain, events, reader


def test_engine_death_is_the_end(serve):
    """As vLLM's API server: open requests fail at once, then the process ends."""
    service = serve()
    whole, plain, events, reader = open_requests(service)
    service.kill(service.engines[0])
    plain.join(20)
    assert_both_ended_with_errors(whole, events, reader)
    assert service.frontend.wait(20) == 1
    assert "the engine is dead, ending" in service.log()


def test_kept_alive_on_engine_death(serve):
    """VLLM_KEEP_ALIVE_ON_ENGINE_DEATH: it goes on answering, with errors, until an engine is there again."""
    service = serve(environment={"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1"})
    whole, plain, events, reader = open_requests(service)
    service.kill(service.engines[0])
    plain.join(20)
    assert_both_ended_with_errors(whole, events, reader)
    assert service.health() == 503 and service.health("/health/live") == 200
    assert service.post().status == 500
    service.start_engine()
    assert wait_until(lambda: service.health() == 200, 30), service.log()
    assert service.post(max_tokens=3).status == 200
    service.frontend.send_signal(signal.SIGTERM)
    assert service.frontend.wait(10) == 0


def test_one_of_two_engines_dies(serve):
    service = serve(engines=2)
    streams = [service.stream() for _ in range(2)]
    assert wait_until(lambda: running(service, 2), 20), service.log()
    service.kill(service.engines[1])
    assert wait_until(lambda: sum(bool(events) and events[-1] == "[DONE]" for events, _ in streams) == 1, 20), service.log()
    assert service.health() == 200
    assert all(service.post(max_tokens=3).status == 200 for _ in range(4))


def test_engine_that_comes_back_at_once_is_no_death(serve):
    service = serve()
    service.kill(service.engines[0])
    service.start_engine()
    assert wait_until(lambda: service.log().count("engine registered") == 2, 20), service.log()
    assert service.post(max_tokens=3).status == 200 and service.frontend.poll() is None
