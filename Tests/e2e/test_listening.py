"""Where the service listens: IPv6, both families at once, a unix socket."""

import os
import pathlib
import signal
import socket
import subprocess

import pytest

import http_client
from server import BINARY, DEFAULT_MODEL, wait_until

MOCK = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m"]
BODY = {"model": "m", "prompt": "hello", "max_tokens": 5, "ignore_eos": True}


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def assert_serves(port, host="127.0.0.1"):
    """Whole and streamed."""
    assert http_client.request(port, "GET", "/v1/models", host=host).json()["data"][0]["id"] == "m"
    answer = http_client.request(port, "POST", "/v1/completions", BODY, host=host)
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == 5
    chunks = http_client.Stream(port, "/v1/completions", BODY | {"stream": True}, host=host).chunks()
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def refused(host, port):
    """What a second service on this address says."""
    result = subprocess.run([BINARY, *MOCK, "--host", host, "--port", str(port)], capture_output=True, text=True, timeout=20)
    assert result.returncode == 3, result
    return result.stderr.strip().splitlines()[-1]


@needs_ipv6
def test_ipv6_address(start_server):
    server = start_server(*MOCK, host="::1")
    assert_serves(server.port, "::1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 5)
    assert f"http://[::1]:{server.port}/v1" in server.log()
    assert f"[::1]:{server.port} is in use: held by pid" in refused("::1", server.port)
    server.stop()


@needs_ipv6
@pytest.mark.parametrize("frontends", [[], ["--api-server-count", "2"]], ids=["one", "two"])
def test_all_addresses_of_both_families(start_server, frontends):
    server = start_server(*MOCK, *frontends, host="::")
    for host in ("::1", "127.0.0.1"):
        assert_serves(server.port, host)
    assert f"{server.port} is in use: held by pid" in refused("::", server.port)
    assert f"{server.port} is in use: held by pid" in refused("0.0.0.0", server.port)
    server.stop()


def test_unix_socket_under_load_and_at_the_end(start_server):
    path = f"/tmp/e2e-{os.getpid()}.sock"  # has to be short
    server = start_server(*MOCK, "--mock-itl-ms", "20", "--uds", path, "--shutdown-timeout", "30", wait=False)
    assert wait_until(lambda: "Try it" in server.log(), 20), server.log()
    server.remember_processes()
    assert_serves(path)
    stream = http_client.Stream(path, "/v1/completions", BODY | {"max_tokens": 100, "stream": True})
    events = iter(stream)
    next(events)
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: http_client.request(path, "GET", "/health/ready").status == 503, 10)
    answer = http_client.request(path, "POST", "/v1/completions", BODY)
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert list(events)[-1] == "[DONE]"
    assert server.wait_exit(10) == 0
    server.assert_gone()
    assert not pathlib.Path(path).exists()
