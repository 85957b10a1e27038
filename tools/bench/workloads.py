"""What is measured: the rows of the table, their workloads, and the requests that both frontends must answer alike."""

import json
import pathlib
import random
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Workload:
    name: str
    path: str = "/v1/chat/completions"
    stream: bool = True
    prompt: str = "text"  # or "ids"
    prompt_tokens: int = 32
    output_tokens: int = 512
    concurrency: int = 64
    step_us: int = 0  # 0 = the engine is as fast as the frontend lets it be
    extra: dict = field(default_factory=dict, hash=False)  # more fields of the request
    script: str = ""  # what the engine answers, instead of words
    arguments: dict = field(default_factory=dict, hash=False)  # of the frontends, which are then started for it alone
    model: str = ""  # a folder beside that of --model, whose tokenizer has what the arguments need
    close: bool = False  # a connection per request
    seconds: float = 3


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {}}}}}]
# A call with long arguments.
LONG_CALL = ('<tool_call>\n{"name": "weather", "arguments": {"city": "' + "the weather of this place and of that one, " * 12
             + '", "days": [1, 2, 3]}}\n</tool_call>')

STEP = 20_000
WORKLOADS = [
    Workload("step64", step_us=STEP),
    Workload("step256", step_us=STEP, concurrency=256),
    Workload("step1024", step_us=STEP, concurrency=1024),
    Workload("fast64"),
    Workload("fast256", concurrency=256),
    Workload("text9k", prompt_tokens=8192, output_tokens=16, concurrency=1),
    Workload("ids8k", path="/v1/completions", prompt="ids", prompt_tokens=8192, output_tokens=16, concurrency=1),
    Workload("whole", stream=False, prompt_tokens=128, output_tokens=128, concurrency=16),
    Workload("wholelong", stream=False, output_tokens=4096, concurrency=16, seconds=2),
    Workload("short", stream=False, prompt_tokens=8, output_tokens=1, concurrency=16, close=True, seconds=2),
    Workload("usage64", extra={"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, seconds=2),
    Workload("logprobs64", path="/v1/completions", extra={"logprobs": 3}, output_tokens=128, seconds=2),
    Workload("reason64", arguments={"reasoning_parser": "deepseek_r1"}, model="tiny-think", seconds=2),
    Workload("tools64", script=LONG_CALL, extra={"tools": TOOLS}, seconds=2),
]


@dataclass(frozen=True)
class Row:
    title: str
    workload: str
    metric: str
    unit: str
    required: float
    higher_is_better: bool = False


# Workloads that have no number to reach but vllm-rs: cheaper, and no later.
COMPARED = [
    ("wholelong", "non-streaming chat 32/4,096, 16 concurrent"),
    ("short", "non-streaming chat 8/1, 16 concurrent, a connection per request"),
    ("usage64", "streaming chat 32/512 with continuous usage, 64 streams"),
    ("logprobs64", "streaming completions 32/128 with 3 log-probabilities, 64 streams"),
    ("reason64", "streaming chat 32/512, all of it reasoning, 64 streams"),
    ("tools64", "streaming calls of a tool with long arguments, 64 streams"),
]

# Latencies of the Swift frontend must not be worse: milliseconds, over all requests or tokens of a run.
LATENCIES = [("ttft_p50", "TTFT p50"), ("ttft_p99", "TTFT p99"), ("itl_p99", "ITL p99")]
LATENCY_WORKLOADS = [("step64", 64), ("step256", 256), ("step1024", 1024)]

ROWS = [
    Row("streaming chat, engine steps every 20 ms, 64 streams", "step64", "cpu_per_token", "µs CPU/token", 0.45),
    Row("same, 256 streams", "step256", "cpu_per_token", "µs CPU/token", 0.45),
    Row("same, 1,024 streams", "step1024", "cpu_per_token", "µs CPU/token", 0.60),
    Row("streaming chat 32/512, engine as fast as possible, 64 streams", "fast64", "cpu_per_token", "µs CPU/token", 0.30),
    Row("same, 256 streams", "fast256", "cpu_per_token", "µs CPU/token", 0.30),
    Row("9k-token text prompt, 16 out, streaming", "text9k", "cpu_per_request", "µs CPU/request", 0.33),
    Row("8k token-id prompt, 16 out, streaming", "ids8k", "cpu_per_request", "µs CPU/request", 0.40),
    Row("non-streaming chat 128/128, 16 concurrent", "whole", "cpu_per_request", "µs CPU/request", 0.35),
    Row("engine step → client read, p50, 64 streams, 20 ms steps", "step64", "path_p50", "ms", 0.85),
    Row("resident memory, idle", "start", "rss_mb", "MB", 0.50),
    Row("resident memory at 1,024 streams", "step1024", "rss_mb", "MB", 0.50),
    Row("exec → first /health 200, engine ready", "start", "health_ms", "ms", 0.60),
    Row("same, with a vocabulary of 151,643 tokens", "start_large", "health_ms", "ms", 0.60),
    Row("TTFT p50, 9k-token text prompt, one client", "text9k", "ttft_p50", "ms", 0.40),
    Row("throughput at saturation, 256 streams", "fast256", "tokens_per_second", "tokens/s", 2.5, higher_is_better=True),
] + [
    Row(f"{title}, engine steps every 20 ms, {streams:,} streams", workload, metric, "ms", 1.0)
    for workload, streams in LATENCY_WORKLOADS for metric, title in LATENCIES
] + [
    Row(f"{title}, engine as fast as possible, {streams:,} streams", workload, metric, "ms", 1.0)
    for workload, streams in (("fast64", 64), ("fast256", 256)) for metric, title in LATENCIES
] + [
    Row(title if metric == "cpu_per_request" else f"same, {name}", workload, metric, unit, 1.0)
    for workload, title in COMPARED
    for metric, name, unit in (("cpu_per_request", "", "µs CPU/request"), ("e2e_p50", "whole answer p50", "ms"),
                               ("e2e_p99", "whole answer p99", "ms"))
]


class Vocabulary:
    """Token ids and words of a model folder's tokenizer."""

    def __init__(self, folder):
        vocabulary = json.loads((pathlib.Path(folder) / "tokenizer.json").read_text())["model"]["vocab"]
        by_id = sorted((i, token) for token, i in vocabulary.items())
        self.all = [i for i, _ in by_id]
        # A space and letters: each is one visible delta, and no frontend has to escape anything.
        self.words = {i: t[1:] for i, t in by_id if re.fullmatch("[\u0120\u2581][A-Za-z]{2,}", t)}
        if len(self.words) < 100:
            raise SystemExit(f"{folder}: the vocabulary has too few words for made-up prompts")

    def text(self, tokens, seed):
        """About that many tokens: few words often, many seldom, as in real text."""
        rng = random.Random(seed)
        words = list(self.words.values())
        random.Random(7).shuffle(words)
        chosen = [words[int(len(words) ** rng.random()) - 1] + (rng.random() < 0.08) * rng.choice(",.;:") for _ in range(tokens)]
        return " ".join(chosen)

    def ids(self, tokens, seed):
        rng = random.Random(seed)
        choices = list(self.words)
        return [rng.choice(choices) for _ in range(tokens)]


def body(workload, vocabulary, model, output_tokens, seed):
    request = {"model": model, "temperature": 1.0, "ignore_eos": True}
    if workload.stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    request |= workload.extra
    if workload.prompt == "ids":
        return request | {"prompt": vocabulary.ids(workload.prompt_tokens, seed), "max_tokens": output_tokens}
    text = vocabulary.text(workload.prompt_tokens, seed)
    if workload.path == "/v1/completions":
        return request | {"prompt": text, "max_tokens": output_tokens}
    message = {"role": "user", "content": text}
    return request | {"messages": [message], "max_completion_tokens": output_tokens}


# What the engine answers in the scripted part of the check: characters of many bytes, and calls of a tool.
SCRIPTS = [
    'Grüße aus Köln: 世界，你好！🙂👩\u200d👩\u200d👧 "quoted" \\ \t— ça va? Привет, мир. ',
    'I look it up.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln 世界", "days": 3}}\n</tool_call>',
    '<tool_call>\n{"name": "weather", "arguments": {"city": "A"}}\n</tool_call>'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "B", "days": [1, 2.5, null]}}\n</tool_call>',
]


def bases(vocabulary):
    chat = {"messages": [{"role": "user", "content": "Grüße, 世界 🙂 " + vocabulary.text(20, 1)}], "max_completion_tokens": 200}
    return chat, {"prompt": vocabulary.ids(20, 2), "max_tokens": 200}


def streamed_and_whole(model, pairs):
    requests = []
    for stream in (False, True):
        for path, body in pairs:
            request = {"model": model, "ignore_eos": True, "temperature": 1.0} | body
            if stream:
                request |= {"stream": True, "stream_options": {"include_usage": True}}
            requests.append((path, request))
    return requests


def equality_requests(vocabulary, model):
    """(path, body) of requests with everything that shapes text; the engine answers them with tokens of all kinds."""
    chat, completion = bases(vocabulary)
    variants = [
        {},
        {"stop": ["e"]},
        {"stop": ["the", "an", "🙂"], "include_stop_str_in_output": True},
        {"skip_special_tokens": False},
        {"n": 3},
    ]
    pairs = [(path, base | variant) for path, base in (("/v1/chat/completions", chat), ("/v1/completions", completion))
             for variant in variants]
    return streamed_and_whole(model, pairs)


def logprobs_requests(vocabulary, model):
    """The same for log-probabilities; the engine answers them with words."""
    chat, completion = bases(vocabulary)
    return streamed_and_whole(model, [
        pair for top in (0, 3) for pair in (
            ("/v1/chat/completions", chat | {"logprobs": True, "top_logprobs": top}),
            ("/v1/completions", completion | {"logprobs": top}))
    ])


def scripted_requests(vocabulary, model, length):
    """The same for a script of `length` tokens."""
    chat, completion = bases(vocabulary)
    chat = chat | {"max_completion_tokens": length}
    return streamed_and_whole(model, [
        ("/v1/completions", completion | {"max_tokens": length}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"tools": TOOLS}),
        ("/v1/chat/completions", chat | {"tools": TOOLS, "n": 2, "parallel_tool_calls": False}),
    ])
