"""A plain HTTP client with server-sent events, on the standard library alone: it hides nothing from the tests."""

import dataclasses
import http.client
import json
import socket


@dataclasses.dataclass
class Response:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def encode(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path, timeout=20):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connect(port, timeout, host="127.0.0.1"):
    """`port` may be the path of a unix socket."""
    return UnixConnection(port, timeout) if isinstance(port, str) else http.client.HTTPConnection(host, port, timeout=timeout)


def request(port, method, path, body=None, headers=None, timeout=60, host="127.0.0.1"):
    connection = connect(port, timeout, host)
    try:
        send = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else encode(body), send | (headers or {}))
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()


class Stream:
    """One streamed answer. Iterating gives the data of each event as text; `[DONE]` is given too."""

    def __init__(self, port, path, body, timeout=60, host="127.0.0.1"):
        self.connection = connect(port, timeout, host)
        self.connection.request("POST", path, encode(body), {"Content-Type": "application/json"})
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.content_type = self.answer.getheader("Content-Type", "")

    def __iter__(self):
        data = []
        while line := self.answer.readline():
            line = line.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" ").decode())
            elif not line and data:
                yield "\n".join(data)
                data = []

    def chunks(self):
        """Parsed events up to `[DONE]`, which must come last."""
        events = list(self)
        assert events and events[-1] == "[DONE]", f"the stream does not end with [DONE]: {events[-2:]}"
        assert "[DONE]" not in events[:-1]
        return [json.loads(event) for event in events[:-1]]

    def close(self):
        """Closes the connection at once, read or unread."""
        if self.answer.fp is not None:
            self.answer.close()
        self.connection.close()


def collect_chat(chunks):
    """Joins chat chunks of one choice into the message that the plain answer would have: the same keys, the same text."""
    message = {"content": "", "reasoning": "", "tool_calls": []}
    finish = None
    for chunk in chunks:
        assert "error" not in chunk, chunk
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning") or delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or []:
                while len(message["tool_calls"]) <= call["index"]:
                    message["tool_calls"].append({"name": "", "arguments": ""})
                function = call.get("function") or {}
                message["tool_calls"][call["index"]]["name"] += function.get("name") or ""
                message["tool_calls"][call["index"]]["arguments"] += function.get("arguments") or ""
            finish = choice.get("finish_reason") or finish
    return message, finish


def plain_chat(body):
    """The same form for a plain (not streamed) answer."""
    choice = body["choices"][0]
    message = choice["message"]
    calls = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in message.get("tool_calls") or []]
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
    return {"content": message.get("content") or "", "reasoning": reasoning, "tool_calls": calls}, choice["finish_reason"]


def read_all(connection):
    """What a raw socket still sends; a reset ends it like a close."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received
