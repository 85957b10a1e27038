#!/usr/bin/env python3
"""A frontend with vllm-rs' command line that answers every request with 200 and its pid, and misbehaves on demand.

FAKE_FRONTEND: "" | "exit:N" at once | "deaf" (never listens) | "stubborn" (ignores SIGTERM).
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

listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen-fd") + 1]))
listener.listen(16)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        body = str(os.getpid())
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
