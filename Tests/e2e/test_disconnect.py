"""A client that goes away takes its request out of the engine."""

import json
import socket
import struct

import pytest

import http_client
from server import wait_until

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
LONG = {"messages": [{"role": "user", "content": "Count to 50."}], "temperature": 0, "max_tokens": 3500, "ignore_eos": True}


def assert_engine_becomes_idle(server, deadline=5):
    assert wait_until(lambda: server.metric(RUNNING) + server.metric(WAITING) == 0, deadline, interval=0.05), "the engine still works on it"


def finished(server):
    """Requests that ended by themselves: a request that was aborted must not be among them."""
    text = server.get("/metrics").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith("vllm:request_success") and ('finished_reason="stop"' in line or 'finished_reason="length"' in line))


def test_closed_stream_aborts(server):
    before = finished(server)
    stream = server.stream("/v1/chat/completions", LONG)
    events = iter(stream)
    for _ in range(3):
        next(events)
    assert wait_until(lambda: server.metric(RUNNING) == 1, 5)
    stream.close()
    assert_engine_becomes_idle(server)
    assert finished(server) == before
    assert server.chat("Hello").status == 200


def test_closed_streams_of_many_clients_abort(server):
    streams = [server.stream("/v1/chat/completions", LONG) for _ in range(20)]
    for stream in streams:
        next(iter(stream))
    for stream in streams:
        stream.close()
    assert_engine_becomes_idle(server)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_closed_plain_request_aborts(server, how):
    before = finished(server)
    body = json.dumps(LONG).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert wait_until(lambda: server.metric(RUNNING) == 1, 5, interval=0.005), "the request never ran"
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert_engine_becomes_idle(server)
    assert finished(server) == before


def test_unread_stream_does_not_stop_others(server):
    """A client that stops reading holds nobody up."""
    slow = server.stream("/v1/chat/completions", LONG)
    try:
        for _ in range(5):
            assert server.chat("What is 2 + 2?").json()["choices"][0]["message"]["content"] == "2 + 2 = 4"
    finally:
        slow.close()
    assert_engine_becomes_idle(server)


def test_half_sent_request_is_not_run(server):
    before = server.get("/metrics").status
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"messages\":")
    assert before == 200
    assert_engine_becomes_idle(server)
    assert http_client.request(server.port, "GET", "/health").status == 200
