#!/usr/bin/env python3
"""A frontend with vllm-rs' command line that answers every request with 200 and its pid, and misbehaves on demand.

FAKE_FRONTEND: "" | "exit:N" at once | "deaf" (never listens) | "stubborn" (ignores SIGTERM) | "drains" (as vLLM's
frontends: at SIGTERM it stops accepting and answers `/held` when its client has said one byte more).
"""

import os
import signal
import socket
import sys
import time

if "--help" in sys.argv:
    print("--listen-fd --input-listener-fd --output-listener-fd --engine-start-index --data-parallel-size")
    sys.exit(0)
if "--version" in sys.argv:
    print("fake-frontend 0.33.0")
    sys.exit(0)

mode = os.environ.get("FAKE_FRONTEND", "")
if mode.startswith("exit:"):
    print("ERROR the fake frontend was told to fail", file=sys.stderr, flush=True)
    sys.exit(int(mode[5:]))
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "deaf":
    time.sleep(1000)

class Stop(Exception):
    pass


def stop(*_):
    raise Stop


if mode == "drains":
    signal.signal(signal.SIGTERM, stop)


def answer(connection):
    body = str(os.getpid())
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    connection.close()


held = []
listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen-fd") + 1]))
listener.listen(16)
try:
    while True:
        connection, _ = listener.accept()
        if b"/held" in connection.recv(65536):
            held.append(connection)
        else:
            answer(connection)
except Stop:
    listener.close()
    for connection in held:
        connection.recv(1)
        answer(connection)
