"""A service under test and its clients: starts it, keeps an account of every stream, says what is left of it afterwards."""

import http.client
import json
import os
import pathlib
import signal
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/e2e"))  # its server, HTTP client and process observation

import http_client  # noqa: E402
import processes  # noqa: E402
from server import BINARY, DEFAULT_MODEL, Server, command, wait_until  # noqa: E402, F401

ENGINE = ROOT / "Engine/build/blas-engine"
MOCK = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--mock-itl-ms", "5"]
COMPLETION = {"model": "m", "prompt": "hello", "ignore_eos": True}


class Failure(Exception):
    """An invariant does not hold."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Client(threading.Thread):
    """One streamed completion, read to its end. `ending` is one of

    done (finish reason and [DONE]), error (error event and [DONE]), refused (an HTTP error), cut (the connection went away),
    unreachable (never connected).
    """

    def __init__(self, port, tokens):
        super().__init__(daemon=True)
        self.port, self.tokens = port, tokens
        self.events, self.times, self.status = [], [], None
        self.broken = None
        self.ended_at = None
        self.start()

    def run(self):
        try:
            stream = http_client.Stream(self.port, "/v1/completions", COMPLETION | {"max_tokens": self.tokens, "stream": True},
                                        timeout=60)
            self.status = stream.status
            for event in stream:
                self.events.append(event)
                self.times.append(time.monotonic())
            stream.close()
        except (OSError, http.client.HTTPException) as error:
            self.broken = error
        self.ended_at = time.monotonic()

    def wait_for(self, events, deadline=30):
        expect(wait_until(lambda: len(self.events) >= events or not self.is_alive(), deadline), "a stream does not flow")

    def ending(self, deadline=30):
        self.join(deadline)
        expect(not self.is_alive(), "a stream neither ended nor broke")
        if self.status is None:
            return "unreachable"
        if self.status != 200:
            return "refused"
        ends = [index for index, event in enumerate(self.events) if event == "[DONE]"]
        expect(len(ends) < 2 and (not ends or ends == [len(self.events) - 1]), f"a stream ended {len(ends)} times")
        if not ends:
            return "cut"
        last = json.loads(self.events[-2])
        if "error" in last:
            return "error"
        return "done" if any(choice.get("finish_reason") for choice in last["choices"]) else "cut"


class Service(Server):
    """The scripted engine behind our frontend unless the arguments say otherwise."""

    def __init__(self, *args, mock=True, **kwargs):
        super().__init__(*(MOCK if mock else []), *args, **kwargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.kill_everything()
        finally:
            if sys.exc_info()[0] is None and os.path.exists(self.log_file.name):
                os.unlink(self.log_file.name)

    def kill(self, role, number=signal.SIGKILL):
        """Signals a child and, if it dies of it, waits until it is gone. Returns the time of the signal."""
        pid = self.child(role)
        known = processes.descendants(pid)
        at = time.monotonic()
        os.kill(pid, number)
        if number == signal.SIGKILL:
            expect(wait_until(lambda: not processes.alive(known), 5), f"{role} survives SIGKILL")
        return at

    def answers(self):
        try:
            return self.post("/v1/completions", COMPLETION | {"max_tokens": 2}, timeout=10).status == 200
        except OSError:
            return False

    def ready(self, path="/health"):
        try:
            return self.get(path, timeout=5).status == 200
        except OSError:
            return False

    def exit_code(self, deadline=20):
        return self.wait_exit(deadline)

    def gone(self, deadline=2.0):
        """Seconds until nothing was left."""
        begin = time.monotonic()
        wait_until(lambda: not self.leftovers(), deadline)
        left = self.leftovers()
        expect(not left, f"left behind after {deadline} s: {'; '.join(left)}")
        return time.monotonic() - begin
