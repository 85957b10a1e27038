"""Many open streams at once, and how each of them ended."""

import http.client
import json
import threading

import http_client
from server import wait_until


class OpenStream(threading.Thread):
    """Reads one long chat stream to its end, whatever that is."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.events = []
        self.status = None
        self.broken = None

    def run(self):
        body = {"messages": [{"role": "user", "content": f"Count from {self.number} to {self.number + 20}."}], "temperature": 0,
                "max_tokens": 3000, "ignore_eos": True, "stream": True}
        try:
            stream = http_client.Stream(self.load.port, "/v1/chat/completions", body, timeout=30)
            self.status = stream.status
            for event in stream:
                self.events.append(event)
                self.load.count()
            stream.close()
        except (OSError, http.client.HTTPException) as error:
            self.broken = error

    def ending(self):
        """How the answer ended: "done", "error", or "cut" when the connection went away in the middle."""
        if self.status != 200 or self.broken or not self.events or self.events[-1] != "[DONE]":
            return "cut"
        before = json.loads(self.events[-2]) if len(self.events) > 1 else {}
        if "error" in before:
            return "error"
        return "done" if any(choice.get("finish_reason") for choice in before.get("choices", [])) else "cut"


class Load:
    def __init__(self, port, streams):
        self.port = port
        self.received = 0
        self.changed = threading.Condition()
        self.streams = [OpenStream(self, number) for number in range(streams)]

    def start(self):
        for stream in self.streams:
            stream.start()
        return self

    def count(self):
        with self.changed:
            self.received += 1
            self.changed.notify_all()

    def wait_for_events(self, number, deadline=60):
        """Returns when all streams together have received this many events: a moment that does not depend on the clock."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.received >= number, deadline), f"only {self.received} events"

    def wait_for_all_open(self, deadline=60):
        with self.changed:
            assert self.changed.wait_for(lambda: all(stream.events for stream in self.streams), deadline)

    def join(self, deadline=30):
        for stream in self.streams:
            stream.join(deadline)
            assert not stream.is_alive(), "a stream neither ended nor broke"
        return [stream.ending() for stream in self.streams]


class BackgroundStream:
    """A completion of exactly `tokens` tokens that is read by a thread."""

    def __init__(self, server, tokens):
        body = {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True}
        self.stream = server.stream("/v1/completions", body)
        assert self.stream.status == 200
        self.events = []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for event in self.stream:
            self.events.append(event)

    def wait_for_tokens(self, count):
        assert wait_until(lambda: len(self.events) >= count, 20)

    def finish(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.events
