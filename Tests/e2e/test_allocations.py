"""What the frontend allocates: nothing per streamed token and per engine step, and a bounded number of times per request.

A real `vllm-swift` whose allocations a preloaded library counts, the paced engine of `tools/bench`, and sockets. The engine
gives one token to every stream with each step: a step that allocates costs 1/32 for each token. What remains are timers.
"""

import http.client
import importlib.util
import json
import pathlib
import subprocess
import sys
import threading

import pytest

from server import BINARY, DEFAULT_MODEL, ROOT

# By its path, because there is a module of that name here too.
SPECIFICATION = importlib.util.spec_from_file_location("bench_processes", ROOT / "tools/bench/processes.py")
bench_processes = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(bench_processes)

DATA = pathlib.Path(__file__).resolve().parent / "data"
STREAMS = 32
STEP_US = 2000
# Measured: up to 0.012 per token (the texts of whole answers grow), and 167 per chat and 85 per completion request. One
# allocation per step would be 0.03 more.
PER_TOKEN, PER_REQUEST = 0.025, 200


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    folder = tmp_path_factory.mktemp("allocations")
    pacer, counter = folder / "pacer", folder / "counter.so"
    subprocess.run(["c++", "-std=c++20", "-O2", "-o", pacer, ROOT / "tools/bench/pacer.cpp", "-lzmq"], check=True)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", counter, DATA / "malloc_counter.c"], check=True)
    return pacer, counter


@pytest.fixture
def counted(tools, tmp_path, monkeypatch):
    """A frontend, and a function that tells its allocations so far."""
    pacer, counter = tools
    monkeypatch.setenv("LD_PRELOAD", str(counter))
    monkeypatch.setenv("MALLOC_COUNTER", str(tmp_path / "count"))
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(map(str, range(300, 400))))
    binary = pathlib.Path(BINARY).with_name("vllm-swift")
    with open(tmp_path / "log", "wb") as log:
        frontend = bench_processes.Frontend("swift", str(binary), str(DEFAULT_MODEL), str(pacer), str(ids), str(tmp_path), log)
    file = tmp_path / f"count.{frontend.process.pid}"
    try:
        yield frontend, lambda: int.from_bytes(file.read_bytes(), sys.byteorder)
    finally:
        frontend.stop()


class Client:
    """A connection that is kept, as the frontend's own per-connection memory is not what is measured."""

    def __init__(self, frontend, number):
        self.number = number
        self.connection = http.client.HTTPConnection("127.0.0.1", frontend.port, timeout=60)
        self.text = ""

    def ask(self, path, body):
        headers = {"Content-Type": "application/json", "X-Request-Id": f"bench-{self.number}"}
        self.connection.request("POST", path, json.dumps(body), headers)
        response = self.connection.getresponse()
        assert response.status == 200
        self.text = response.read().decode()


def run(clients, path, body):
    threads = [threading.Thread(target=client.ask, args=(path, body)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        usage = json.loads(client.text.split("data: ")[-2] if body["stream"] else client.text)["usage"]
        assert usage["completion_tokens"] == body.get("max_tokens", body.get("max_completion_tokens"))


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_tokens_allocate_nothing_and_requests_little(counted, chat, stream):
    frontend, allocations = counted
    frontend.tell_engine(f"step {STEP_US}")
    clients = [Client(frontend, number) for number in range(STREAMS)]
    model = str(DEFAULT_MODEL)

    def cost(tokens):
        """Allocations of one request of so many tokens on every connection."""
        body = {"model": model, "stream": stream, "ignore_eos": True}
        if stream:
            body["stream_options"] = {"include_usage": True}
        if chat:
            path, body = "/v1/chat/completions", body | {"messages": [{"role": "user", "content": "hello"}]}
            body["max_completion_tokens"] = tokens
        else:
            path, body = "/v1/completions", body | {"prompt": "hello", "max_tokens": tokens}
        before = allocations()
        run(clients, path, body)
        return allocations() - before

    # What is kept and reused is made by the first requests.
    cost(300)
    cost(300)
    short, long = cost(50), cost(300)
    for client in clients:
        client.connection.close()
    per_token = (long - short) / (STREAMS * 250)
    per_request = short / STREAMS - 50 * per_token
    print(f"allocations: {per_token:.3f} per token, {per_request:.0f} per request")
    assert per_token < PER_TOKEN
    assert per_request < PER_REQUEST
