"""One cell of the matrix: starts the processes, makes every check, ends them, and says what was found."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import http_client
import matrix
import processes

CHECKS = ["start", "chat", "completions", "logprobs", "stop", "structured", "abort", "reset", "pause", "sleep", "SIGTERM"]
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16, "temperature": 0}
# Shorter than a cache block, so that a later request computes exactly what the first one did.
COMPLETION = {"prompt": "def add(", "max_tokens": 16, "temperature": 0}
STREAMS = 8


class Absent(Exception):
    """What the check is about does not exist in this combination."""


def wait_until(condition, limit, interval=0.02):
    end = time.monotonic() + limit
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(interval)
    return value


class Cell:
    def __init__(self, row, model):
        self.row = row
        self.port, handshake_port = processes.free_port(), processes.free_port()
        self.marker = f"interop-{uuid.uuid4().hex}"
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="interop-", dir="/tmp"))  # unix socket paths must be short
        self.log = pathlib.Path(tempfile.mkstemp(prefix="interop-", suffix=".log")[1])
        self.greedy = {}
        environment = matrix.environment(row, self.scratch, self.marker)
        self.children = []
        with self.log.open("wb") as log:
            for command in row.launch(model, self.port, handshake_port):
                self.children.append(subprocess.Popen(
                    [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, env=environment, cwd=self.scratch))

    # ---- requests ----

    def get(self, path):
        return http_client.request(self.port, "GET", path)

    def post(self, path, body, status=200):
        answer = http_client.request(self.port, "POST", path, {"model": matrix.MODEL_NAME} | body)
        assert answer.status == status, f"{path}: HTTP {answer.status} {answer.body[:300]}"
        return answer.json()

    def stream(self, path, body):
        stream = http_client.Stream(self.port, path, {"model": matrix.MODEL_NAME, "stream": True} | body)
        assert stream.status == 200, f"{path}: HTTP {stream.status} {stream.answer.read()[:300]}"
        return stream

    def metric(self, name, label=""):
        text = self.get("/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " ")) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines or label else None

    # ---- checks ----

    def check_start(self):
        def ready():
            for child in self.children:
                assert child.poll() is None, f"{child.args[0]} exited with {child.returncode} while starting"
            try:
                return self.get("/health").status == 200
            except OSError:
                return False
        assert wait_until(ready, self.row.start_limit, 0.2), f"/health was not 200 within {self.row.start_limit:.0f} s"
        models = self.get("/v1/models").json()["data"]
        assert [model["id"] for model in models] == [matrix.MODEL_NAME], models
        self.context = models[0]["max_model_len"]

    def check_chat(self):
        body = self.post("/v1/chat/completions", CHAT)
        plain, finish = http_client.plain_chat(body)
        assert body["usage"]["completion_tokens"] == 16 or finish == "stop", body
        streamed = http_client.collect_chat(self.stream("/v1/chat/completions", CHAT).chunks())
        assert streamed == (plain, finish), f"streamed {streamed}, plain {(plain, finish)}"
        self.greedy["chat"] = (plain["content"], finish, body["usage"]["prompt_tokens"])

    def completion(self, **fields):
        body = self.post("/v1/completions", COMPLETION | fields)
        return body["choices"][0], body["usage"]

    def check_completions(self):
        choice, usage = self.completion()
        assert usage["completion_tokens"] == 16 or choice["finish_reason"] == "stop", usage
        chunks = self.stream("/v1/completions", COMPLETION).chunks()
        text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
        assert text == choice["text"], f"streamed {text!r}, plain {choice['text']!r}"
        self.greedy["completion"] = (choice["text"], choice["finish_reason"], usage["prompt_tokens"])

    def check_logprobs(self):
        choice, _ = self.completion(logprobs=2)
        logprobs = choice["logprobs"]
        self.check_tokens(logprobs["tokens"], choice["text"], choice["finish_reason"])
        assert all(value <= 0 for value in logprobs["token_logprobs"]), logprobs["token_logprobs"]
        # Greedy: the sampled token is the likeliest one.
        for value, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
            assert len(top) >= 2 and value == max(top.values()), (value, top)
        chunks = self.stream("/v1/completions", COMPLETION | {"logprobs": 2}).chunks()
        streamed = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice.get("logprobs")]
        for key in ("tokens", "token_logprobs"):
            joined = [value for part in streamed for value in part[key]]
            assert joined == logprobs[key], f"streamed {key} {joined}, plain {logprobs[key]}"
        chat = CHAT | {"logprobs": True, "top_logprobs": 2}
        body = self.post("/v1/chat/completions", chat)
        content = body["choices"][0]["logprobs"]["content"]
        plain, finish = http_client.plain_chat(body)
        self.check_tokens([item["token"] for item in content], plain["content"], finish)
        assert all(len(item["top_logprobs"]) == 2 for item in content), content
        chunks = self.stream("/v1/chat/completions", chat).chunks()
        streamed = [item for chunk in chunks for choice in chunk["choices"]
                    for item in (choice.get("logprobs") or {}).get("content") or []]
        assert streamed == content, f"streamed {streamed}, plain {content}"
        self.greedy["logprobs"] = [round(value, 3) for value in logprobs["token_logprobs"]]

    def check_tokens(self, tokens, text, finish):
        """The tokens make up the text; one that ended the answer has logprobs, but no text."""
        assert "".join(tokens) == text or (finish == "stop" and "".join(tokens[:-1]) == text), (tokens, text, finish)

    def check_stop(self):
        text = self.greedy["completion"][0]
        word = text[len(text) // 2:len(text) // 2 + 4]  # crosses token borders; its first occurrence counts
        choice, _ = self.completion(stop=[word])
        wanted = text[:text.index(word)]
        assert (choice["text"], choice["finish_reason"]) == (wanted, "stop"), (choice, wanted)
        chunks = self.stream("/v1/completions", COMPLETION | {"stop": [word]}).chunks()
        streamed = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
        assert streamed == wanted, f"streamed {streamed!r}, wanted {wanted!r}"
        # A stop token is found by the engine: the second token of the answer, or an equal one before it.
        ids = self.completion(return_token_ids=True)[0]["token_ids"]
        choice, usage = self.completion(stop_token_ids=[ids[1]])
        place = ids.index(ids[1])
        assert (choice["finish_reason"], choice["stop_reason"], usage["completion_tokens"]) == ("stop", ids[1], place + 1), (choice, ids)

    def check_structured(self):
        if not self.row.real_engine:
            return self.check_refusal("/v1/completions", COMPLETION | {"structured_outputs": {"regex": "[ab]{6}"}})
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
        body = self.post("/v1/chat/completions", CHAT | {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
        # JSON allows any amount of space, and random weights may well choose nothing else: all that counts is the order.
        value = "".join(body["choices"][0]["message"]["content"].split())
        assert value and any(whole.startswith(value) for whole in ('{"ok":true}', '{"ok":false}')), body
        choice, _ = self.completion(structured_outputs={"regex": "[ab]{6}"})
        assert len(choice["text"]) == 6 and set(choice["text"]) <= set("ab"), choice
        choice, _ = self.completion(structured_outputs={"choice": ["yes", "no"]})
        assert choice["text"] in ("yes", "no"), choice

    def open_long_streams(self):
        """Streams that run for as many tokens as the model's context has. Many at once, because small models are fast."""
        body = COMPLETION | {"max_tokens": self.context - 64, "ignore_eos": True}

        def begin(_):
            stream = self.stream("/v1/completions", body)
            next(iter(stream))
            return stream
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            return list(pool.map(begin, range(STREAMS)))

    def check_abort(self):
        running, ends = "vllm:num_requests_running", "vllm:request_success_total"
        complete = self.metric(ends, 'finished_reason="length"')
        streams = self.open_long_streams()
        assert wait_until(lambda: self.metric(running), 5), f"{running} stayed at {self.metric(running)} during streams"
        for stream in streams:
            stream.close()
        assert wait_until(lambda: self.metric(running) == 0, 5), f"{running} is {self.metric(running)} after the disconnect"
        # On a loaded machine the first streams may be through before the last one has begun.
        assert self.metric(ends, 'finished_reason="length"') < complete + STREAMS, "every request ran to its end without a client"
        # A plain request has to be aborted as well. It may be through before it is seen running.
        body = json.dumps(COMPLETION | {"model": matrix.MODEL_NAME, "max_tokens": self.context - 64, "ignore_eos": True})
        for _ in range(5):
            complete = self.metric(ends, 'finished_reason="length"')
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            wait_until(lambda: self.metric(running) or self.metric(ends, 'finished_reason="length"') > complete, 5)
            connection.close()
            assert wait_until(lambda: self.metric(running) == 0, 5), f"{running} is {self.metric(running)} without a client"
            if self.metric(ends, 'finished_reason="length"') == complete:
                break
        else:
            raise AssertionError("five plain requests ran to their ends without a client")
        self.completion()

    def check_refusal(self, path, body=None):
        """What the engine cannot do is refused, by a frontend of ours with a client's status, and nothing else happens."""
        answer = http_client.request(self.port, "POST", path, b"" if body is None else {"model": matrix.MODEL_NAME} | body)
        # Other frontends are told the reason from 0.33 on.
        informed = "vllm-swift" in self.row.title or "0.33, descriptors" in self.row.title
        wanted = (400,) if informed else (400, 500)
        assert answer.status in wanted, f"{path}: HTTP {answer.status} {answer.body[:300]}"
        self.check_same_answer(f"the refused {path}")
        return "refused"

    def check_same_answer(self, after):
        choice, _ = self.completion()
        assert choice["text"] == self.greedy["completion"][0], f"another answer after {after}: {choice['text']!r}"

    def call(self, path):
        """A control route; Absent if the frontend does not have it."""
        answer = http_client.request(self.port, "POST", path, b"")
        if answer.status == 404:
            raise Absent
        assert answer.status == 200, f"{path}: HTTP {answer.status} {answer.body[:300]}"
        return answer.body

    def is_true(self, question, key):
        return self.get(question).json()[key]

    def check_reset(self):
        hits = "vllm:prefix_cache_hits_total"
        body = {"model": matrix.MODEL_NAME, "prompt": "def add(a, b):\n" * 60, "max_tokens": 1, "temperature": 0}

        def found():
            """Tokens that one more such prompt finds in the cache, on one engine."""
            before = self.metric(hits)
            answer = http_client.request(self.port, "POST", "/v1/completions", body, {"X-data-parallel-rank": "0"})
            assert answer.status == 200, f"HTTP {answer.status} {answer.body[:300]}"
            return self.metric(hits) - before
        found()
        # The counters come with the messages of steps, of which the last may follow the answer.
        assert wait_until(found, 5), "a repeated prompt is not found in the prefix cache"
        answer = self.call("/reset_prefix_cache")
        assert not answer or json.loads(answer).get("success", True) is True, answer
        settled = self.settled(hits)
        found()
        assert self.settled(hits) == settled, "the prompt is in the prefix cache after a reset"
        self.check_same_answer("reset_prefix_cache")

    def settled(self, name):
        """A counter after a request with nothing to count in it has passed through the same engines."""
        http_client.request(self.port, "POST", "/v1/completions", COMPLETION | {"model": matrix.MODEL_NAME},
                            {"X-data-parallel-rank": "0"})
        return self.metric(name)

    def check_pause(self):
        for mode in ("keep", "wait", "abort"):
            long = self.stream("/v1/completions", COMPLETION | {"max_tokens": 256, "ignore_eos": True})
            next(iter(long))
            self.call(f"/pause?mode={mode}")
            assert self.is_true("/is_paused", "is_paused") is True, f"/is_paused after /pause?mode={mode}"
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                # It waits for the engine, or is told to come back (vLLM 0.33).
                late = pool.submit(http_client.request, self.port, "POST", "/v1/completions",
                                   COMPLETION | {"model": matrix.MODEL_NAME})
                self.call("/resume")
                assert self.is_true("/is_paused", "is_paused") is False, "/is_paused after /resume"
                answer = late.result()
            assert answer.status in (200, 503), f"a request during a pause: HTTP {answer.status} {answer.body[:300]}"
            finishes = [choice["finish_reason"] for chunk in long.chunks() for choice in chunk.get("choices", [])
                        if choice.get("finish_reason")]
            # The stream may have been through before the pause began.
            assert finishes == ["length"] or (mode == "abort" and finishes == ["abort"]), f"mode {mode}: ended with {finishes}"
            self.check_same_answer(f"a pause of mode {mode}")

    def check_sleep(self):
        for level in (1, 2):
            self.call(f"/sleep?level={level}")
            assert self.is_true("/is_sleeping", "is_sleeping") is True, f"/is_sleeping after /sleep?level={level}"
            if http_client.request(self.port, "POST", "/wake_up?tags=weights", b"").status == 200:
                assert self.is_true("/is_sleeping", "is_sleeping") is True, "awake without its KV cache"
                self.call("/wake_up?tags=kv_cache")
            else:  # the Rust frontends up to 0.30 read no tags
                self.call("/wake_up")
            assert self.is_true("/is_sleeping", "is_sleeping") is False, "/is_sleeping after both parts woke up"
            self.check_same_answer(f"a sleep of level {level}")
        self.call("/sleep?level=1")
        self.call("/wake_up")
        assert self.is_true("/is_sleeping", "is_sleeping") is False, "/is_sleeping after /wake_up"
        self.check_same_answer("a whole sleep")

    def check_SIGTERM(self):
        known = processes.marked(self.marker)
        streams = self.open_long_streams()
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        end = time.monotonic() + self.row.stop_limit
        for child in self.children:
            try:
                code = child.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{child.args[0]} runs {self.row.stop_limit:.0f} s after SIGTERM") from None
            assert code == 0, f"{child.args[0]} exited with {code}"
        for stream in streams:
            stream.close()

        def left():
            alive = [f"{pid} {text}" for pid, text in processes.alive(known | processes.marked(self.marker)).items()]
            # vLLM kills its engine at once unless told otherwise, and that leaves the engine's own sockets behind.
            theirs = self.row.supervisor != "ours"
            sockets = [] if theirs else [str(path) for path in self.scratch.rglob("*") if path.is_socket()]
            return alive + sockets + ([f"port {self.port}"] if processes.is_listened_at(self.port) else [])
        wait_until(lambda: not left(), 3)
        assert not left(), f"left behind: {left()}"

    # ---- ending ----

    def close(self):
        for pid in processes.alive(processes.marked(self.marker)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for child in self.children:
            child.wait(10)
        shutil.rmtree(self.scratch, ignore_errors=True)


def run(row, model):
    """({check: ok | refused | failed | absent}, the greedy answers, or {} when the processes did not start)"""
    results = {}
    cell = Cell(row, model)
    started = time.monotonic()
    try:
        for name in CHECKS:
            try:
                results[name] = getattr(cell, f"check_{name}")() or "ok"
            except Absent:
                results[name] = "absent"
            except Exception as error:  # whatever goes wrong, the other checks and rows are worth knowing
                results[name] = "failed"
                print(f"   {name}: {type(error).__name__}: {error}"[:2000])
                if name == "start":
                    break
    finally:
        cell.close()
    if "failed" in results.values():
        tail = "\n".join("     " + line[:300] for line in cell.log.read_text(errors="replace").splitlines()[-12:])
        print(f"   the processes' last lines (all: {cell.log}):\n{tail}")
    else:
        cell.log.unlink()
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
    return results, cell.greedy
