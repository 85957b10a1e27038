"""Clients of a soak: every kind of request, good, bad and rude, and the account that each gives of its end.

Each ends exactly once, as one of

answered   a whole and right answer
error      a stream that ended with an error event and [DONE]
refused    an HTTP error in the API's shape
left       the client went away, as it had meant to
cut        the connection ended, or was reset, before the answer did
"""

import collections
import dataclasses
import http.client
import json
import random
import socket
import threading
import time

from service import expect, http_client

ANSWER_DEADLINE = 60
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
# Greedy: asked once alone, and from then on the answer has to be the same whatever goes on beside it.
QUESTIONS = [f"What is {a} + {b}?" for a, b in ((7, 5), (12, 30), (41, 8), (25, 17))] + [
    f"What is the capital of {country}?" for country in ("France", "Japan", "Kenya", "Peru", "Iceland")] + [
    "Hello!", "Count from 3 to 23."]


@dataclasses.dataclass
class Account:
    """What a client knows of what it caused."""
    kind: str
    begin: float
    end: float = 0.0
    ending: str = ""
    status: int = 0
    path: str = ""
    sequences: int = 0  # that the engine was asked for, as far as the answer shows
    prompt_tokens: int = 0
    generated_tokens: int = 0
    reasons: list = dataclasses.field(default_factory=list)
    note: str = ""


class Wrong(Exception):
    """An answer that is none, or not the right one."""


def check(condition, text):
    if not condition:
        raise Wrong(str(text)[:500])


class Traffic:
    """Sends requests to one service and keeps their accounts."""

    def __init__(self, port):
        self.port = port
        self.lock = threading.Lock()
        self.threads = set()
        self.accounts = []
        self.references = {}

    def learn(self):
        for question in QUESTIONS:
            answer = self.post("/v1/chat/completions", self.question(question))
            expect(answer.status == 200, f"no reference answer: {answer.body}")
            self.references[question] = answer.json()["choices"][0]["message"]["content"]

    # ---- the open loop ----

    def run(self, rate, seconds, rng, leave_out=(), most_open=400):
        """Poisson arrivals. Returns how many were not sent because too many were open."""
        kinds, weights = zip(*((kind, weight) for kind, weight in KINDS.items() if kind.__name__ not in leave_out))
        at, end, left_out = time.monotonic(), time.monotonic() + seconds, 0
        while (at := at + rng.expovariate(rate)) < end:
            kind, seed = rng.choices(kinds, weights)[0], rng.random()
            time.sleep(max(0.0, at - time.monotonic()))
            if len(self.threads) >= most_open:
                left_out += 1
                continue
            thread = threading.Thread(target=self.client, args=(kind, random.Random(seed)), daemon=True)
            with self.lock:
                self.threads.add(thread)
            thread.start()
        return left_out

    def settle(self, deadline=ANSWER_DEADLINE + 30):
        """Returns the accounts of all clients since the last time; each has ended."""
        end = time.monotonic() + deadline
        while self.threads:
            with self.lock:
                thread = next(iter(self.threads), None)
            if thread:
                thread.join(max(0.0, end - time.monotonic()))
                expect(not thread.is_alive(), f"{len(self.threads)} requests neither ended nor broke")
        with self.lock:
            accounts, self.accounts = self.accounts, []
        return accounts

    def client(self, kind, rng):
        account = Account(kind.__name__, time.monotonic())
        try:
            kind(self, account, rng)
            if not account.ending:
                raise Wrong("no ending")
        except Wrong as error:
            account.ending, account.note = "wrong", str(error)
        except (OSError, http.client.HTTPException) as error:
            account.ending, account.note = "cut", repr(error)
        except Exception as error:  # what is no account at all must not get lost with its thread
            account.ending, account.note = "wrong", repr(error)
        account.end = time.monotonic()
        with self.lock:
            self.accounts.append(account)
            self.threads.discard(threading.current_thread())

    # ---- requests ----

    def post(self, path, body):
        return http_client.request(self.port, "POST", path, body, timeout=ANSWER_DEADLINE)

    def question(self, text, **fields):
        return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 100, **fields}

    def whole(self, account, path, body):
        """A plain answer, or None if there was an error instead."""
        account.path = path
        answer = self.post(path, body)
        account.status = answer.status
        if answer.status != 200:
            self.refusal(account, answer.headers, answer.body)
            return None
        answer = answer.json()
        self.count(account, answer["usage"], [choice["finish_reason"] for choice in answer["choices"]])
        account.ending = "answered"
        return answer

    def streamed(self, account, path, body, leave_after=None):
        """Chunks of a stream up to its end, or None if it ended differently. Leaves after so many chunks with text."""
        account.path = path
        usage = {"include_usage": True, "continuous_usage_stats": leave_after is not None}
        stream = http_client.Stream(self.port, path, body | {"stream": True, "stream_options": usage}, timeout=ANSWER_DEADLINE)
        try:
            account.status = stream.status
            if stream.status != 200:
                self.refusal(account, {k.lower(): v for k, v in stream.answer.getheaders()}, stream.answer.read())
                return None
            chunks, ends = [], 0
            for event in stream:
                check(ends == 0, f"an event after the end: {event}")
                if event == "[DONE]":
                    ends += 1
                    continue
                chunks.append(json.loads(event))
                if (last := chunks[-1].get("usage")) and leave_after is not None:
                    account.prompt_tokens, account.generated_tokens = last["prompt_tokens"], last["completion_tokens"]
                    account.sequences = body.get("n", 1)
                    if last["completion_tokens"] >= leave_after:
                        account.ending = "left"
                        return None
            if not ends:
                account.ending = "cut"
                return None
        finally:
            stream.close()
        reasons = {}
        for chunk in chunks:
            for choice in chunk.get("choices", []):
                if choice.get("finish_reason"):
                    check(choice["index"] not in reasons, f"choice {choice['index']} ended twice")
                    reasons[choice["index"]] = choice["finish_reason"]
        if "error" in chunks[-1]:
            account.ending = "error"
            account.sequences = body.get("n", 1)
            return None
        check(len(reasons) == body.get("n", 1), f"{len(reasons)} choices ended: {chunks[-2:]}")
        check(chunks[-1].get("usage"), f"no usage: {chunks[-1]}")
        self.count(account, chunks[-1]["usage"], list(reasons.values()))
        account.ending = "answered"
        return chunks

    def refusal(self, account, headers, body):
        account.ending = "refused"
        if b"There was an error parsing the body" in body:  # of bytes that are no text, in FastAPI's shape, as vLLM has it
            return
        error = json.loads(body)["error"]
        check(error["code"] == account.status and error["message"], f"not the API's error: {body}")
        check(account.status != 503 or "retry-after" in headers, f"503 without Retry-After: {body}")
        account.note = error["message"]

    def count(self, account, usage, reasons):
        check(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage)
        account.prompt_tokens, account.generated_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        account.sequences, account.reasons = len(reasons), reasons


CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def chat_stream(traffic, account, rng):
    question = rng.choice(QUESTIONS)
    chunks = traffic.streamed(account, CHAT, traffic.question(question))
    if chunks:
        message, _ = http_client.collect_chat(chunks)
        check(message["content"] == traffic.references[question], f"{question} {message}")


def chat_whole(traffic, account, rng):
    question = rng.choice(QUESTIONS)
    answer = traffic.whole(account, CHAT, traffic.question(question))
    if answer:
        content = answer["choices"][0]["message"]["content"]
        check(content == traffic.references[question], f"{question} {content}")


def words(rng, least, most):
    return " ".join(rng.choice("count capital hello number weather of the and name json".split())
                    for _ in range(rng.randint(least, most)))


def completion(traffic, account, rng):
    """A sampled text of an exact length, streamed or not, with text or token ids as the prompt."""
    length = rng.randint(1, 80)
    prompt = words(rng, 3, 60) if rng.random() < 0.7 else [rng.randint(20, 1500) for _ in range(rng.randint(1, 200))]
    body = {"prompt": prompt, "max_tokens": length, "ignore_eos": True, "temperature": 0.8, "seed": rng.randint(0, 9999)}
    send = traffic.streamed if rng.random() < 0.5 else traffic.whole
    if send(account, COMPLETIONS, body):
        check(account.generated_tokens == length and account.reasons == ["length"], account)


def several(traffic, account, rng):
    n = rng.randint(2, 4)
    body = {"prompt": words(rng, 3, 10), "n": n, "max_tokens": rng.randint(2, 30), "ignore_eos": True, "temperature": 1.0}
    send = traffic.streamed if rng.random() < 0.5 else traffic.whole
    if send(account, COMPLETIONS, body):
        check(account.sequences == n and account.generated_tokens == n * body["max_tokens"], account)


def logprobs(traffic, account, rng):
    body = traffic.question(rng.choice(QUESTIONS), logprobs=True, top_logprobs=rng.randint(1, 5))
    answer = traffic.whole(account, CHAT, body)
    if answer:
        content = answer["choices"][0]["logprobs"]["content"]
        check(len(content) == account.generated_tokens, f"{len(content)} logprobs of {account.generated_tokens} tokens")
        check(all(len(token["top_logprobs"]) == body["top_logprobs"] for token in content), content)


def tools(traffic, account, rng):
    body = traffic.question(f"What is the weather in {rng.choice(['Paris', 'Rome', 'Oslo'])}?", tools=[WEATHER])
    if rng.random() < 0.5:
        chunks = traffic.streamed(account, CHAT, body)
        message, reason = http_client.collect_chat(chunks) if chunks else (None, None)
    else:
        answer = traffic.whole(account, CHAT, body)
        message, reason = http_client.plain_chat(answer) if answer else (None, None)
    if message:
        check(reason == "tool_calls" and message["tool_calls"][0]["name"] == "get_weather", message)
        check("city" in json.loads(message["tool_calls"][0]["arguments"]), message)


def stop(traffic, account, rng):
    chunks = traffic.streamed(account, CHAT, traffic.question("Count from 3 to 23.", stop=["9, 10"]))
    if chunks:
        message, reason = http_client.collect_chat(chunks)
        check(reason == "stop" and message["content"].endswith("8, ") and "9" not in message["content"], message)


def long_prompt(traffic, account, rng):
    """Half of them share a beginning, so that blocks of the cache are shared, evicted and counted by several."""
    beginning = "the capital of the name " * 60 if rng.random() < 0.5 else ""
    traffic.whole(account, COMPLETIONS, {"prompt": beginning + words(rng, 100, 400), "max_tokens": 8, "ignore_eos": True})


def looks(traffic, account, rng):
    """What is no generation, several of them on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", traffic.port, timeout=ANSWER_DEADLINE)
    try:
        for path in rng.sample(["/health", "/v1/models", "/metrics", "/health/live", "/version", "/load"], 3):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            account.ending = "answered" if answer.status == 200 else "refused"
            if answer.status != 200:
                check(answer.status in (500, 503), f"{path}: {answer.status}")
                return
    finally:
        connection.close()


def leave_stream(traffic, account, rng):
    body = {"prompt": "hello", "max_tokens": 3000, "ignore_eos": True}
    traffic.streamed(account, COMPLETIONS, body, leave_after=rng.randint(1, 300))


def leave_before_answer(traffic, account, rng):
    """Nobody knows how much of it the server had seen: counted apart."""
    body = json.dumps({"prompt": "hello", "max_tokens": 2000, "ignore_eos": True}).encode()
    with socket.create_connection(("127.0.0.1", traffic.port), 10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(rng.uniform(0, 0.3))
        account.ending = "left"


def half_request(traffic, account, rng):
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"prompt\""
    with socket.create_connection(("127.0.0.1", traffic.port), 10) as connection:
        connection.sendall(request[:rng.randint(1, len(request))])
        time.sleep(rng.uniform(0, 3))
        account.ending = "left"


def slow_reader(traffic, account, rng):
    """Takes a long stream through a small window, a little at a time, and loses its patience."""
    body = json.dumps({"prompt": "hello", "max_tokens": 3000, "ignore_eos": True, "stream": True}).encode()
    connection = socket.socket()
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", traffic.port))
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(rng.randint(1, 40)):
            if not connection.recv(rng.randint(1, 2000)):
                break
            time.sleep(rng.uniform(0, 0.1))
        account.ending = "left"


BAD = [
    (CHAT, b"{"), (CHAT, b"[]"), (CHAT, b'{"messages": "\xff"}'), (CHAT, b"[" * 5000), (CHAT, {"messages": []}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "temperature": 1e9}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 10**9}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "chat_template": "{{ 'a' * 10**9 }}"}),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "model": "nobody"}),
    # Our engine has no grammars.
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}}),
    (COMPLETIONS, {"prompt": "x", "n": 10**6}), (COMPLETIONS, {"prompt": [10**6]}), (COMPLETIONS, {"prompt": [-1]}),
    (COMPLETIONS, {"prompt": "hello " * 20000}), (COMPLETIONS, {"prompt": "x", "stop": ["y"] * 100000}),
    (COMPLETIONS, {"prompt": "x", "structured_outputs": {"regex": "("}}), (COMPLETIONS, {}),
]


def bad(traffic, account, rng):
    path, body = rng.choice(BAD)
    account.path = path
    answer = traffic.post(path, body)
    account.status = answer.status
    check(answer.status != 200, f"accepted: {str(body)[:100]}")
    traffic.refusal(account, answer.headers, answer.body)


# How often each is drawn.
KINDS = {
    chat_stream: 22, chat_whole: 14, completion: 20, several: 5, logprobs: 5, tools: 5, stop: 4, long_prompt: 4,
    looks: 4, leave_stream: 5, leave_before_answer: 2, half_request: 2, slow_reader: 2, bad: 8,
}
# Their sequences the client cannot count: how far they got is known to the server alone.
UNCOUNTED = {"leave_before_answer", "slow_reader", "half_request"}


def table(accounts):
    """{kind: {ending: how many}}"""
    found = collections.defaultdict(collections.Counter)
    for account in accounts:
        found[account.kind][account.ending] += 1
    return found
