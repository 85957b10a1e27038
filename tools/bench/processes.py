"""Starts a frontend with an engine of its own, and reads what it costs from the kernel."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time


def process_tree(pid):
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    waiting += map(int, file.read().split())
    return found


def cpu_seconds(pid):
    """User and system time of a process tree, with the resolution of the scheduler's own clock."""
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            # The clock id that clock_getcpuclockid(3) gives for a process.
            total += time.clock_gettime_ns(~member << 3 | 2)
    return total / 1e9


def resident_mb(pid):
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{member}/status") as file:
            total += next((int(line.split()[1]) for line in file if line.startswith("VmRSS")), 0)
    return total / 1024


class Frontend:
    """One frontend process on inherited sockets, as vLLM's supervisor starts it, and its engine."""

    def __init__(self, name, binary, model, pacer, tokens, folder, log, arguments=None):
        self.name, self.folder = name, folder
        self.stamps = os.path.join(folder, f"{name}.stamps")
        listeners = [self._listen(socket.AF_INET, ("127.0.0.1", 0))]
        addresses = []
        for end in ("in", "out"):
            path = os.path.join(folder, f"{name}-{end}.sock")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listeners.append(self._listen(socket.AF_UNIX, path))
            addresses.append("ipc://" + path)
        self.port = listeners[0].getsockname()[1]
        self.engine = subprocess.Popen(
            [pacer, "--input", addresses[0], "--output", addresses[1], "--tokens", tokens, "--stamps", self.stamps],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        numbers = [listener.fileno() for listener in listeners]
        arguments = {"model_tag": model, "engine_ready_timeout_secs": 60, "http_timeout_keep_alive": 600, "max_model_len": 32768,
                     "enable_auto_tool_choice": True, "tool_call_parser": "hermes"} | (arguments or {})
        command = [binary, "frontend", "--listen-fd", str(numbers[0]), "--input-listener-fd", str(numbers[1]),
                   "--output-listener-fd", str(numbers[2]), "--engine-start-index", "0", "--engine-count", "1",
                   "--data-parallel-size", "1", "--args-json", json.dumps(arguments)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        started = time.monotonic()
        self.process = subprocess.Popen(command, pass_fds=numbers, stdout=log, stderr=log, env=environment)
        for listener in listeners:
            listener.close()
        try:
            self._wait_healthy()
        except BaseException:
            self.stop()
            raise
        self.health_ms = (time.monotonic() - started) * 1000

    @staticmethod
    def _listen(family, address):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(2048)
        return listener

    def _wait_healthy(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}; see its log")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.001)
        raise SystemExit(f"{self.name} is not healthy after a minute; see its log")

    def tell_engine(self, command):
        self.engine.stdin.write(command + "\n")
        self.engine.stdin.flush()
        if not self.engine.stdout.readline():
            raise SystemExit("the engine ended; see its log")

    def stop(self):
        """Ends both processes, by force if they do not want to."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            self.engine.stdin.close()
        for process in (self.process, self.engine):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(OSError):
            os.unlink(self.stamps)
