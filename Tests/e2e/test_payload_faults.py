"""Requests that are bombs, or that differ from a good one in a random place: a clear refusal or an answer, never harm."""

import copy
import json
import os
import random

import pytest

from test_invalid_input import CHAT, COMPLETION, MESSAGES, assert_error, assert_works

SEED = int(os.environ.get("VLLM_E2E_SEED", "1"))
FUZZED = int(os.environ.get("VLLM_E2E_FUZZED", "400"))
MEGABYTE = "x" * 1_000_000


@pytest.fixture(scope="module")
def trusting():
    """Takes chat templates from requests, and has every route that a text server can have."""
    from conftest import shared

    yield from shared("--trust-request-chat-template", "--enable-scale-out", "--enable-tokenizer-info-endpoint")


FIELDS = ["model", "temperature", "top_p", "n", "seed", "stop", "max_tokens", "logprobs", "logit_bias", "stream", "stream_options", "user", "response_format", "cache_salt", "priority", "truncation_side"]


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("field", FIELDS)
def test_errors_do_not_repeat_what_was_sent(server, path, field):
    body = {"messages": MESSAGES} if path == CHAT else {"prompt": "a"}
    for value in (MEGABYTE, [MEGABYTE], {MEGABYTE: 1}, ["ab"] * 100_000):
        answer = server.post(path, body | {"max_tokens": 2} | {field: value})
        assert answer.status in (200, 400, 404), (answer.status, answer.body[:300])
        assert answer.status == 200 or len(answer.body) < 2048, (field, len(answer.body), answer.body[:300])


@pytest.mark.parametrize("depth", [100, 1000, 100_000, 2_000_000])
def test_depth_of_unknown_fields(server, depth):
    text = '{"prompt": "a", "max_tokens": 2, "unknown": ' + "[" * depth + "]" * depth + "}"
    answer = server.post(COMPLETION, text.encode())
    assert answer.status == (200 if depth == 100 else 400), answer.body[:300]
    assert len(answer.body) < 2048


def test_a_prompt_of_megabytes_is_refused(server):
    for body in ({"prompt": "word " * 640_000}, {"prompt": ["word " * 640_000] * 2}, {"prompt": [5] * 500_000}):
        assert len(json.dumps(assert_error(server.post(COMPLETION, body | {"max_tokens": 1})))) < 2048
    assert_works(server)


@pytest.mark.parametrize("path, body", [
    (CHAT, {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}), (COMPLETION, {"prompt": "a", "max_tokens": 4, "temperature": 0}),
    (COMPLETION, {"prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}), ("/tokenize", {"prompt": "a b c"}),
    (COMPLETION, {"prompt": "a", "max_tokens": -1}), (COMPLETION, {"prompt": 7}),
])
def test_large_bodies_are_answered_as_small_ones(server, path, body):
    """They are parsed elsewhere, so that they hold up nobody."""
    def essence(answer):
        return answer.status, *(answer.json().get(key) for key in ("choices", "error", "tokens"))

    text = json.dumps(body)
    for padding in (" " * 300_000, "\n" * 3_000_000):
        assert essence(server.post(path, (text[:-1] + padding + "}").encode())) == essence(server.post(path, body))
        broken = server.post(path, (text[:-1] + padding + ",}").encode())
        assert broken.status == 400
        assert f"body.{len(text) + len(padding)}" in broken.body.decode(), broken.body[:300]
    assert server.post(path, b"[" + b" " * 300_000 + b"]").status == 400


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "long text": "{{ 'x' * 99999999999 }}", "doubled text": "{% set t = namespace(x='x') %}{% for i in range(99) %}{% set t.x = t.x ~ t.x %}{% endfor %}{{ t.x }}",
    "long list": "{{ ([1] * 9999999999) | length }}", "replaced": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}", "joined": "{{ (('y' * 99999) | list) | join('z' * 99999) }}",
    "padded": "{{ 'a'.ljust(9999999999) }}", "formatted": "{{ '%999999999d' % 5 }}", "centred": "{{ 'a' | center(9999999999) }}", "indented": "{{ ('a\\n' * 9999) | indent(999999) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "mutual recursion": "{% macro a(f) %}{{ f(f) }}{% endmacro %}{{ a(a) }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 }}", "depth": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}", "depth of blocks": "{% if 1 %}" * 50_000, "range": "{{ range(9999999999999) | list }}",
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}", "function": "{{ messages.append.__self__ }}", "globals": "{{ raise_exception.__globals__ }}", "attr": "{{ '' | attr('__class__') }}",
    "include": "{% include '/etc/passwd' %}", "import": "{% import 'os' as os %}", "extends": "{% extends '/etc/passwd' %}", "open": "{{ open('/etc/passwd').read() }}",
    "unclosed": "{% for m in messages %}", "unknown tag": "{% explode %}", "raised": "{{ raise_exception('not in this order') }}",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_templates_of_requests(trusting, kind):
    for body in ({"chat_template": BOMBS[kind]}, {"chat_template": "{{ messages[0].content }}", "chat_template_kwargs": {"chat_template": BOMBS[kind]}}):
        answer = trusting.post(CHAT, {"messages": MESSAGES, "max_tokens": 2} | body)
        # Attributes that are not there are undefined, and undefined is empty text, as in Jinja2's sandbox.
        assert answer.status in (200, 400), (answer.status, answer.body[:300])
        assert len(answer.body) < 4096 and b"root:" not in answer.body
    if kind not in ("class", "function", "globals", "attr"):
        assert_error(trusting.post(CHAT, {"messages": MESSAGES, "max_tokens": 2, "chat_template": BOMBS[kind]}))
    assert_works(trusting)


@pytest.mark.parametrize("kind", ["loops", "doubled text", "recursion", "replaced"])
def test_templates_of_models_are_limited_too(start_server, tmp_path, kind):
    file = tmp_path / "bomb.jinja"
    file.write_text("{% if messages[0].content == 'Hello' %}" + BOMBS[kind] + "{% else %}{{ messages[0].content }}{% endif %}")
    server = start_server("--chat-template", str(file))
    assert_error(server.post(CHAT, {"messages": MESSAGES, "max_tokens": 2}))
    assert server.post(CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).status == 200


GOOD = {
    COMPLETION: {"prompt": "Hello", "max_tokens": 3, "temperature": 0.5, "logprobs": 2, "stop": ["z"], "seed": 1, "stream_options": None, "logit_bias": {"5": 1}},
    CHAT: {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "max_tokens": 3, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}], "tool_choice": "none", "logprobs": True, "top_logprobs": 1},
    "/v1/chat/completions/batch": {"messages": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]], "max_tokens": 2},
    "/inference/v1/generate": {"token_ids": [5, 6], "sampling_params": {"max_tokens": 2, "logprobs": 1}, "stream": False},
    "/inference/v1/abort_requests": {"request_ids": ["a"]}, "/tokenize": {"prompt": "Hello", "return_token_strs": True}, "/detokenize": {"tokens": [5, 6]},
    "/v1/completions/render": {"prompt": ["Hello"], "max_tokens": 2}, "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "Hi"}]},
}  # fmt: skip
VALUES = [None, True, False, 0, 1, -1, 2, 2**31, 2**63, -2**63 - 1, 1.5, 1e308, float("nan"), float("inf"), "", "a", "\0", "\ud800", "🙂" * 50, "5", "true", [], [[]], [None], [5], ["a"], {}, {"a": 1}, {"": None}, [0] * 3000, "x" * 30_000]
NAMES = ["n", "best_of", "stream", "echo", "suffix", "top_k", "min_p", "min_tokens", "prompt_logprobs", "stop_token_ids", "allowed_token_ids", "bad_words", "response_format", "structured_outputs", "chat_template", "chat_template_kwargs",
         "continue_final_message", "add_generation_prompt", "add_special_tokens", "truncate_prompt_tokens", "priority", "return_token_ids", "vllm_xargs", "kv_transfer_params", "reasoning_effort", "messages", "prompt", "tools", "tool_choice",
         "routed_experts_prompt_start", "prompt_logprob_token_ids", "prompt_logprob_start", "repetition_detection", "request_id", "role", "content", "type", "function", "name", "parameters", "tool_calls"]  # fmt: skip


class Mutator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def places(self, value, found):
        """Every (container, key) below `value`."""
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            found.append((value, key))
            self.places(inner, found)
        return found

    def body(self, good):
        r, body = self.random, json.loads(json.dumps(good))
        for _ in range(r.choice([1, 1, 1, 2, 4])):
            places = self.places(body, [])
            kind = r.randrange(5)
            if kind == 0 or not places:
                body[r.choice(NAMES)] = copy.deepcopy(r.choice(VALUES))
                continue
            container, key = r.choice(places)
            if kind == 1:
                del container[key]
            elif kind == 2 and isinstance(container, list):
                container.extend(copy.deepcopy(container[key]) for _ in range(r.choice([1, 3, 200])))
            elif kind == 3 and isinstance(container, dict):
                container[r.choice(NAMES)] = container.pop(key)
            else:
                container[key] = copy.deepcopy(r.choice(VALUES))
        text = json.dumps(body)
        if r.random() < 0.1:
            cut = r.randrange(len(text))
            text = text[:cut] + r.choice(['"', "{", "]", ",", "\\", "\0", "\xff", "1e999"]) + text[cut + r.choice([0, 1]):]
        return text.encode("utf-8", "surrogatepass")


def test_good_requests_with_random_faults(trusting):
    routes = [path for path, methods in trusting.get("/openapi.json").json()["paths"].items() if "post" in methods]
    assert set(GOOD) <= set(routes)
    engine = trusting.child("engine")
    mutator = Mutator(SEED)
    for number in range(FUZZED):
        path = mutator.random.choice(sorted(GOOD) * 2 + routes)
        body = mutator.body(GOOD.get(path, {"model": "x", "input": "a"}))
        answer = trusting.post(path, body)
        told = f"seed {SEED}, request {number}: {path} {body[:500]!r} -> {answer.status} {answer.body[:300]!r}"
        assert answer.status < 500 or answer.status == 501, told
        if answer.status == 200 and answer.headers.get("content-type", "").startswith("application/json"):
            check_answer(path, answer.json(), told)
        elif answer.status >= 400:
            assert answer.json() and len(answer.body) < 8192, told
        if number % 100 == 99:
            assert_works(trusting)
    assert trusting.child("engine") == engine


def check_answer(path, answer, told):
    """A whole answer to a request that was taken must be one."""
    if path not in (COMPLETION, CHAT, "/v1/chat/completions/batch", "/inference/v1/generate"):
        return
    assert answer["choices"], told
    for choice in answer["choices"]:
        assert choice["finish_reason"] in ("stop", "length", "tool_calls", "repetition"), told
    assert answer["usage"]["completion_tokens"] >= 1, told
