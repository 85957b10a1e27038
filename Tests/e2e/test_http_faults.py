"""Clients that are broken, slow or hostile, on real sockets: each gets its answer, and nobody else notices."""

import gzip
import json
import os
import resource
import socket
import struct

import pytest

from http_client import read_all
from server import DEFAULT_MODEL, Server, wait_until

SLOW_READERS = int(os.environ.get("VLLM_E2E_SLOW_READERS", "200"))
BODY = {"model": "m", "prompt": "hello", "max_tokens": 1500, "ignore_eos": True}


@pytest.fixture
def start(start_server):
    def start(*args, **kwargs):
        return start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--max-model-len", "4096",
                            *args, **kwargs)

    return start


@pytest.fixture(scope="module")
def server():
    """One for all that leave it as it was; its own, because the shared one is for well-behaved clients."""
    server = Server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--max-model-len", "4096")
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def connect(server, timeout=30, receive_buffer=None):
    connection = socket.socket()
    connection.settimeout(timeout)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", server.port))
    return connection


def send_until_refused(connection, part, times):
    try:
        for _ in range(times):
            connection.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        pass


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


def assert_error_object(answer, code):
    assert status(answer) == code, answer[:300]
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert error["code"] == code and error["message"]


def frontend_memory(server):
    """Resident bytes."""
    with open(f"/proc/{server.child('frontend')}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def assert_works(server):
    answer = server.post("/v1/completions", BODY | {"max_tokens": 2})
    assert answer.status == 200, answer


def head(*fields, line="POST /v1/completions HTTP/1.1"):
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode()


def test_header_limits_are_those_of_the_options(start):
    server = start("--h11-max-incomplete-event-size", "20000", "--h11-max-header-count", "10")
    for fields, code in [(["X: " + "a" * 15_000], 200), (["X: " + "a" * 30_000], 431), ([f"X-{n}: 1" for n in range(8)], 200),
                         ([f"X-{n}: 1" for n in range(12)], 431)]:
        with connect(server) as connection:
            connection.sendall(head(*fields, "Connection: close", line="GET /v1/models HTTP/1.1"))
            answer = read_all(connection)
        if code == 200:
            assert status(answer) == 200, answer[:300]
        else:
            assert_error_object(answer, code)


def test_long_target(server):
    with connect(server) as connection:
        connection.sendall(head("Connection: close", line=f"GET /v1/models?{'a' * 70_000} HTTP/1.1"))
        assert_error_object(read_all(connection), 414)


AMBIGUOUS = {
    "two kinds of length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a negative length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nHost: x\n\n",
    "folded field": b"GET /health HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
    "huge chunk": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_ambiguous_requests_end_the_connection(server, kind):
    with connect(server) as connection:
        connection.sendall(AMBIGUOUS[kind] + b"GET /version?smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(connection)
    assert_error_object(answer, 400)
    assert answer.count(b"\r\n\r\n") == 1 and b"connection: close" in answer.lower()


def test_http2_preface(server):
    with connect(server) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert status(read_all(connection)) in (400, 505)


def test_pipelined_requests_and_expect(server):
    with connect(server) as connection:
        connection.sendall(head(line="GET /health HTTP/1.1") + head("Connection: close", line="GET /version HTTP/1.1"))
        answers = read_all(connection)
        assert answers.count(b"HTTP/1.1 200 OK") == 2 and answers.rstrip().endswith(b"}")
    text = json.dumps(BODY | {"max_tokens": 1}).encode()
    with connect(server) as connection:
        connection.sendall(head("Content-Type: application/json", f"Content-Length: {len(text)}", "Expect: 100-continue",
                                "Connection: close"))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(text)
        assert status(read_all(connection)) == 200


def test_half_sent_heads_are_given_up(start):
    """They cost a descriptor for some seconds; meanwhile everybody else is served."""
    server = start(environment={"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "1"})
    before = frontend_memory(server)
    connections = [connect(server) for _ in range(500)]
    for connection in connections:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Half: ")
    assert_works(server)
    assert frontend_memory(server) - before < 20 << 20
    assert {status(read_all(connection)) for connection in connections} == {408}
    for connection in connections:
        connection.close()


def test_bodies_that_do_not_come_are_given_up(server):
    """Half sent, announced as chunks, or a byte at a time: 408 after the time for a body, and the connection ends."""
    silent = connect(server, timeout=60)
    silent.sendall(head("Content-Type: application/json", "Content-Length: 1000") + b'{"model": "m", ')
    chunked = connect(server, timeout=60)
    chunked.sendall(head("Content-Type: application/json", "Transfer-Encoding: chunked") + b"5\r\n{\"mod")
    trickling = connect(server, timeout=0.5)
    trickling.sendall(head("Content-Type: application/json", "Content-Length: 100000"))
    answer = b""
    while not answer:
        try:
            trickling.sendall(b" ")
            answer = trickling.recv(65536)
        except TimeoutError:
            pass
    assert_works(server)
    for connection, received in ((silent, b""), (chunked, b""), (trickling, answer)):
        answer = received + read_all(connection)
        assert_error_object(answer, 408)
        assert b"connection: close" in answer.lower()
        connection.close()


def test_idle_connections_are_closed(start):
    server = start(environment={"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "1"})
    with connect(server) as connection:
        connection.sendall(head(line="GET /health HTTP/1.1"))
        answer = read_all(connection)  # ends with the connection
    assert answer.startswith(b"HTTP/1.1 200 OK") and b"connection: close" not in answer.lower()


def test_bodies_stop_at_the_limit(server):
    """Announced, endless, or packed: nothing is kept beyond the limit."""
    before = frontend_memory(server)
    with connect(server) as connection:
        connection.sendall(head("Content-Type: application/json", f"Content-Length: {1 << 30}"))
        assert_error_object(read_all(connection), 413)
    with connect(server) as connection:
        connection.sendall(head("Content-Type: application/json", "Transfer-Encoding: chunked"))
        send_until_refused(connection, b"10000\r\n" + b" " * 65536 + b"\r\n", 2000)
        answer = read_all(connection)
    assert not answer or status(answer) == 413, answer[:200]
    with connect(server) as connection:
        connection.sendall(head("Content-Type: application/json", "Transfer-Encoding: chunked"))
        send_until_refused(connection, b"1;" + b"x" * 4000 + b"\r\n \r\n", 200_000)
        answer = read_all(connection)
    assert not answer or status(answer) in (400, 413, 431), answer[:200]
    bomb = gzip.compress(b" " * (64 << 20))
    answer = server.post("/v1/completions", bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status == 400, answer
    assert_works(server)
    assert frontend_memory(server) - before < 100 << 20


def test_connection_flood(server):
    for number in range(3000):
        connection = connect(server)
        if number % 3 == 1:
            connection.sendall(b"GET /health HTTP/1.1\r\n")
        if number % 3 == 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        if number % 500 == 0:
            assert_works(server)
    assert_works(server)


def test_slow_readers_cost_little_and_hold_nobody_up(start):
    """Streams that nobody reads: the engine goes on, what is kept for them is small, and it is all there when they do read."""
    server = start("--mock-itl-ms", "2", "--max-num-seqs", "2048")
    text = json.dumps(BODY | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    before = frontend_memory(server)
    connections = [connect(server, receive_buffer=4096) for _ in range(SLOW_READERS)]
    for connection in connections:
        connection.sendall(head("Content-Type: application/json", f"Content-Length: {len(text)}") + text)
    assert_works(server)
    assert wait_until(lambda: server.metric("vllm:generation_tokens_total") >= SLOW_READERS * 1500, 120)
    assert (frontend_memory(server) - before) / SLOW_READERS < 20_000
    for connection in connections:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            part = connection.recv(65536)
            assert part, "cut"
            received += part
        assert received.count(b"[DONE]") == 1 and b'"completion_tokens":1500' in received
        connection.close()


def test_readers_that_never_come_are_dropped(start_server):
    """What would be kept for one has its limit; the log says why it went."""
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--mock-itl-ms", "0",
                          "--max-model-len", "120000")
    with connect(server, receive_buffer=4096) as connection:
        text = json.dumps(BODY | {"stream": True, "max_tokens": 100_000, "return_token_ids": True}).encode()
        connection.sendall(head("Content-Type: application/json", f"Content-Length: {len(text)}") + text)
        assert wait_until(lambda: "end=slow_reader" in server.log(), 60), server.log()[-2000:]
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 20)
    assert_works(server)
