#!/usr/bin/env python3
"""Sends the same generated requests to two servers and shows where their answers differ.

    tools/interop/differential.py --reference http://127.0.0.1:8000 --ours http://127.0.0.1:8001 [--random 500 --seed 1]
    tools/interop/differential.py --reference http://127.0.0.1:8000 --record Tests/OpenAIServerTests/Fixtures/refusals.json

Both must serve the same model as `tiny` under the same flags, best on engines of the same kind: vLLM with its own
frontend, and vLLM with ours. Compared are the status, the error's type, parameter and code, and for good requests the
answer without identifiers and times; streams are merged first. Every type goes into every field, and then come values at
the limits, combinations, and with --random some hundreds of random ones. Differences are printed to be judged: sampled
texts, and what this project does not have or does otherwise on purpose, are among them. The exit code is 1 if there are any.

--record writes what the reference refuses, a few requests for each kind of refusal, as the expectations of a test.
"""
import argparse
import concurrent.futures
import copy
import http.client
import json
import pathlib
import random
import re
import sys
from urllib.parse import urlsplit

MASKED = {"id", "created", "request_id", "system_fingerprint", "owned_by", "permission", "version", "metrics"}
HUGE = [2**31, -2**31, 2**63 - 1, 2**63, 2**64, -2**63 - 1]
TYPES = [None, True, False, 0, 1, -1, 1.5, "x", "1", "", [], {}, [None], ["x"], [1], {"a": 1}, [[]]]


def send(base, method, path, body=None, headers=None):
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
    headers = dict(headers or {})
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    else:
        data = None
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type") or "", answer.read()
    except (OSError, http.client.HTTPException) as error:
        return -1, "", repr(error).encode()
    finally:
        connection.close()


def clean(value, key=None):
    """Without identifiers, times and what is empty in some way."""
    if isinstance(value, dict):
        kept = {k: clean(v, k) for k, v in value.items() if k not in MASKED}
        return {k: v for k, v in kept.items() if v not in (None, [], "", {}) or k in ("text", "choices")}
    if isinstance(value, list):
        return [clean(v) for v in value]
    if isinstance(value, float):
        return round(value, 1)
    return value


def merge(data):
    """A stream as one answer, whatever its pieces."""
    out = {"choices": {}, "usage": None, "errors": [], "objects": set(), "done": False, "heads": {}}
    for block in data.decode("utf-8", "replace").split("\n\n"):
        if not block.startswith("data: "):
            continue
        text = block[6:]
        if text == "[DONE]":
            out["done"] = True
            continue
        try:
            chunk = json.loads(text)
        except ValueError:
            out["errors"].append(text)
            continue
        if "error" in chunk:
            out["errors"].append(error(chunk))
            continue
        out["objects"].add(chunk.get("object"))
        for key, value in chunk.items():
            if key not in MASKED | {"choices", "usage", "object"} and value is not None:
                out["heads"][key] = clean(value)
        if chunk.get("usage") and not chunk.get("choices"):
            out["usage"] = clean(chunk["usage"])
        if chunk.get("usage") and chunk.get("choices"):
            out["continuous"] = True
        for choice in chunk.get("choices") or []:
            slot = out["choices"].setdefault(choice["index"], {})
            add(slot, {k: v for k, v in choice.items() if k != "index"})
    out["objects"] = sorted(out["objects"], key=str)
    return clean(out)


def add(slot, piece):
    for key, value in piece.items():
        if value is None:
            continue
        if key == "tool_calls":
            for call in value:
                add(slot.setdefault("tool_calls", {}).setdefault(call.get("index"), {}), call)
        elif isinstance(value, dict):
            add(slot.setdefault(key, {}), value)
        elif isinstance(value, list):
            slot.setdefault(key, []).extend(value)
        elif isinstance(value, str) and key not in ("finish_reason", "stop_reason", "role", "type"):
            slot[key] = slot.get(key, "") + value
        else:
            slot[key] = value


def error(body):
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return body
    return {k: inner.get(k) for k in ("type", "param", "code")}


def message(data):
    try:
        return str(json.loads(data)["error"]["message"])[:300]
    except Exception:
        return data[:300].decode("utf-8", "replace")


def view(result):
    status, kind, data = result
    kind = kind.split(";")[0]
    if kind == "text/event-stream":
        return {"status": status, "stream": merge(data)}
    try:
        body = json.loads(data)
    except ValueError:
        return {"status": status, "kind": kind, "text": data[:200].decode("utf-8", "replace")}
    if status >= 400:
        return {"status": status, "error": error(body)}
    return {"status": status, "body": clean(body)}


def differences(a, b, path="", out=None):
    out = [] if out is None else out
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b), key=str):
            if key not in a:
                out.append(f"{path}.{key}: absent | {str(b[key])[:70]}")
            elif key not in b:
                out.append(f"{path}.{key}: {str(a[key])[:70]} | absent")
            else:
                differences(a[key], b[key], f"{path}.{key}", out)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b)):
            differences(x, y, f"{path}.{index}", out)
    elif isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool):
        if abs(a - b) > 0.11 + 0.02 * abs(a):
            out.append(f"{path}: {a} | {b}")
    elif a != b:
        out.append(f"{path}: {str(a)[:90]} | {str(b)[:90]}")
    return out


# ---- requests ----

COMPLETION = {"model": "tiny", "prompt": "def add(", "max_tokens": 4, "temperature": 0}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}
TOOL = {"type": "function", "function": {"name": "get", "description": "d", "parameters": {
    "type": "object", "properties": {"c": {"type": "string", "enum": ["a"]}}, "required": ["c"], "additionalProperties": False}}}
SCHEMA = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}

# Values worth sending besides those of every type.
COMMON = {
    "model": ["nobody", "tiny-alias", "TINY", 5],
    "max_tokens": [0, 2047, 2048, 2049, 3.0, 3.5, "3", "3.5", *HUGE],
    "temperature": [2, 2.0001, 1e-6, 0.009, "0.5", 1e400, -0.0, "nan", "inf", *HUGE],
    "top_p": [0, 1, 1.0001, 1e-9, "0.5"],
    "top_k": [-1, -2, 0, 5, 10000, 2**31, 5.0, 5.5],
    "min_p": [0, 1, 1.01, -0.1],
    "repetition_penalty": [0, 0.001, 2, 2.1, 100, -1],
    "presence_penalty": [2, 2.01, -2, -2.01],
    "frequency_penalty": [2, 2.01, -2, -2.01],
    "seed": [0, -1, *HUGE],
    "n": [0, 1, 2, -1, 3, 1.0, "2", 20000, 2**40],
    "stop": ["a", ["a", "b"], ["a"] * 4, ["a"] * 5, ["a", ""], [1], ["a", None], "\u00e9", " "],
    "stop_token_ids": [[0], [8191], [8192], [-1], [1.0], ["1"], [2**31], [1] * 50],
    "include_stop_str_in_output": ["true", "yes", 2], "ignore_eos": ["false"], "skip_special_tokens": ["off"],
    "spaces_between_special_tokens": [False],
    "min_tokens": [0, 4, 5, 2, -1, 2**31, "2"],
    "logit_bias": [{"5": 100}, {"5": 101}, {"8191": 1}, {"8192": 1}, {"-1": 1}, {"x": 1}, {"5": "x"}, {"5": None}, {"5.0": 1}, {" 5": 1},
                   {"5": 1e400}, {str(2**40): 1}],
    "allowed_token_ids": [[5], [], [8191], [8192], [-1], ["5"], [5.0], [5, 5]],
    "bad_words": [["a"], [""], "a", [" "], ["a", 5], ["\u00e9"]],
    "truncate_prompt_tokens": [1, 2, 0, -1, -2, 2048, 2049, 5000, "1"],
    "truncation_side": ["left", "right", "middle"],
    "add_special_tokens": [True, False, "x"],
    "stream": [None, "true", 1, "x", 0],
    "stream_options": [{}, {"include_usage": True}, {"include_usage": False}, {"include_usage": None}, {"include_usage": "x"},
                       {"continuous_usage_stats": True}, {"include_usage": True, "continuous_usage_stats": True}, {"x": 1}, None],
    "stream_interval": [0, 1, 5, -1],
    "priority": [0, 1, -1, 2**31],
    "request_id": ["abc", "a b", "", "\u00e9", "x" * 500],
    "session_id": ["abc", ""],
    "user": ["u"],
    "cache_salt": ["s", "", "a" * 128, "a" * 129, "a@b", "a/b", "a\\b", "a\0b", "\u00e9"],
    "thinking_token_budget": [-1, -2, 0, 5],
    "repetition_detection": [{"max_pattern_size": 2, "min_pattern_size": 1, "min_count": 2}, {"max_pattern_size": 1, "min_pattern_size": 2, "min_count": 2},
                             {"max_pattern_size": 2, "min_count": 1}, {"max_pattern_size": 0, "min_pattern_size": 0, "min_count": 0}, {"max_pattern_size": 2},
                             {"min_count": 3}, {"max_pattern_size": -1, "min_count": 2}],
    "kv_transfer_params": [{"a": 1}], "ec_transfer_params": [{"a": 1}],
    "vllm_xargs": [{"a": 1}, {"a": "b"}, {"a": [1]}, {"a": [1, "x"]}, {"a": {"b": 1}}, {"a": None}, {"a": 2**63}],
    "watermarking": [True],
    "response_format": [{"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
                        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": "x"}}, {"type": "json_schema"},
                        {"type": "json_schema", "json_schema": {}}, {"type": "json_schema", "json_schema": {"name": "x"}},
                        {"type": "json_schema", "json_schema": {"name": 5, "schema": SCHEMA}}, {"type": "json_schema", "json_schema": None},
                        {"type": "json_schema", "json_schema": {"name": "x", "schema": "x"}}, {"type": "xml"}, {"type": None}, {"type": 5}, {},
                        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}},
                        {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}, {"type": "structural_tag"},
                        {"type": "structural_tag", "format": {"type": "const_string", "value": "a"}},
                        {"type": "structural_tag", "structures": [], "triggers": []}, {"type": "structural_tag", "format": 5}],
    "structured_outputs": [{}, {"choice": ["a", "b"]}, {"choice": []}, {"choice": "a"}, {"choice": [1]}, {"choice": [""]}, {"regex": "a+"}, {"regex": ""},
                           {"regex": "("}, {"regex": 5}, {"json": SCHEMA}, {"json": json.dumps(SCHEMA)}, {"json": "{"}, {"json": {}}, {"json": 5}, {"json": ""},
                           {"json": True}, {"json_object": True}, {"json_object": False}, {"json_object": None}, {"grammar": "root ::= \"a\""}, {"grammar": ""},
                           {"grammar": "root ::="}, {"grammar": "x ::= \"a\""}, {"choice": ["a"], "regex": "a"}, {"choice": None, "regex": "a"}, {"nothing": 1},
                           {"choice": ["a"], "disable_any_whitespace": True}, {"json": SCHEMA, "whitespace_pattern": " "}, {"structural_tag": ""},
                           {"structural_tag": "{"}, {"structural_tag": json.dumps({"type": "structural_tag", "format": {"type": "const_string", "value": "a"}})},
                           {"regex": "a", "_backend": "outlines"}],
    "return_token_ids": [True], "return_tokens_as_token_ids": [True], "use_beam_search": [True], "length_penalty": [1.0, 2.0, -1],
    "prompt_logprobs": [0, 1, 20, 21, -1, -2], "logprob_token_ids": [[5], [8192], [-1], [], list(range(200))], "nonsense": [1],
    "routed_experts_prompt_start": [0, 1, 100, -1], "return_weight_versions": [True], "detokenize": [False], "best_of": [2, 0],
    "include_reasoning": [True, False], "parallel_tool_calls": [True, False],
}
ONLY_COMPLETION = {
    "prompt": ["", "a", [], [""], ["a", "b"], ["a", ""], [1, 2], [[1, 2], [3]], [[]], [1, "a"], ["a", 1], [[1], "a"], [8191], [8192], [-1], [1.0], [1.5], [True],
               [2**31], [2**63], [[1, None]], [None], "x " * 3000, "a" * 100000, list(range(2047)), list(range(2048)), list(range(2044)), list(range(2045)), "\u00e9\u4e2d", "<|im_start|>", "\0"],
    "echo": [True], "suffix": ["x", ""], "logprobs": [0, 1, 2, 20, 21, -1, -2, "1", 1.0], "prompt_embeds": ["x", ["x"]],
}
ONLY_CHAT = {
    "messages": [[], [{}], [{"role": "user"}], [{"content": "a"}], [{"role": "user", "content": None}], [{"role": "user", "content": 5}],
                 [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], [{"role": "user", "content": [{"type": "text"}]}],
                 [{"role": "user", "content": [{"type": "nothing"}]}], [{"role": "user", "content": [{"text": "a"}]}], [{"role": "user", "content": ["a"]}],
                 [{"role": "user", "content": []}], [{"role": "user", "content": ""}], [{"role": 5, "content": "a"}], [{"role": None, "content": "a"}],
                 [{"role": "", "content": "a"}], [{"role": "nobody", "content": "a"}], [{"role": "system", "content": "a"}], [{"role": "assistant", "content": "a"}],
                 [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}], [{"role": "function", "name": "f", "content": "a"}],
                 [{"role": "tool", "content": "a"}], [{"role": "tool", "tool_call_id": "1", "content": "a"}], ["a"], [None], [[]], "a",
                 [{"role": "user", "content": "a", "name": 5}], [{"role": "user", "content": "a", "name": "n"}],
                 [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "a"}],
                 [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get", "arguments": "{"}}]}],
                 [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get"}}]}],
                 [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "get", "arguments": "{}"}}]}],
                 [{"role": "assistant", "tool_calls": []}], [{"role": "assistant", "tool_calls": "x"}], [{"role": "assistant", "tool_calls": [5]}],
                 [{"role": "assistant", "content": "a", "reasoning": "r"}, {"role": "user", "content": "b"}],
                 [{"role": "assistant", "content": "a", "reasoning_content": "r"}, {"role": "user", "content": "b"}],
                 [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}],
                 [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]}],
                 [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}], [{"role": "user", "content": [{"type": "thinking", "thinking": "no"}]}],
                 [{"role": "user", "content": {"type": "text", "text": "a"}}], [{"role": "user", "content": "x " * 3000}], [{"role": "user", "content": "a", "extra": [1]}],
                 [{"role": "user", "content": "a"}] * 50, {"role": "user", "content": "a"}],
    "max_completion_tokens": [0, 1, 2047, 2048, -1, "3", *HUGE],
    "logprobs": [True, False], "top_logprobs": [0, 1, 20, 21, -1, -2, 2],
    "tools": [[TOOL], [], [{}], [TOOL, TOOL], [{"type": "x", "function": {"name": "a"}}], [{"type": "function"}], [{"type": "function", "function": {}}],
              [{"type": "function", "function": {"name": ""}}], [{"type": "function", "function": {"name": "a b"}}], [{"type": "function", "function": {"name": "a", "parameters": None}}],
              [{"type": "function", "function": {"name": "a", "parameters": "x"}}], [{"type": "function", "function": {"name": "a", "parameters": {"type": "nothing"}}}],
              [{"function": {"name": "a"}}], [{"type": "function", "function": {"name": 5}}], [{"type": "function", "function": {"name": "a", "strict": True}}], [None], {"a": 1}],
    "tool_choice": ["none", "auto", "required", "x", "", {}, {"type": "function"}, {"type": "function", "function": {"name": "get"}}, {"type": "function", "function": {"name": "no"}},
                    {"type": "function", "function": {}}, {"type": "x", "function": {"name": "get"}}, {"function": {"name": "get"}}, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
                    {"type": "function", "function": {"name": 5}}, {"type": "function", "name": "get"}],
    "reasoning_effort": ["none", "low", "medium", "high", "max", "minimal", "xhigh", "x"],
    "echo": [True], "add_generation_prompt": [False], "continue_final_message": [True],
    "chat_template": ["x", "", "{{ messages }}"], "chat_template_kwargs": [{}, {"a": 1}, {"chat_template": "x"}, {"tokenize": True}, {"messages": []}, {"enable_thinking": False}],
    "documents": [[{"title": "a", "text": "b"}], [{"a": 5}], ["x"]], "media_io_kwargs": [{}, {"image": {}}], "mm_processor_kwargs": [{}, {"a": 1}],
    "return_prompt_text": [True], "functions": [[{"name": "a"}]], "function_call": ["auto"], "max_tokens": [None, 0, 2040, 2048],
    "service_tier": ["auto"], "modalities": [["text"]], "store": [True], "metadata": [{"a": "b"}], "verbosity": ["low"],
}


def variants(base, fields):
    for name, values in fields.items():
        for value in [*TYPES, *values]:
            yield {**base, name: value}


def needs_company(base, path):
    """Fields that mean something only beside others."""
    many = []
    def put(**fields):
        many.append({**base, **fields})
    for stream in (False, True):
        s = {"stream": stream}
        for options in COMMON["stream_options"]:
            put(**s, stream_options=options)
        put(**s, n=2, temperature=0), put(**s, n=2, temperature=1, seed=5), put(**s, n=2, temperature=1, seed=5, logprobs=1)
        put(**s, stop=["d", "e"], include_stop_str_in_output=True), put(**s, min_tokens=3, stop=["a", "e", " ", "i"]), put(**s, ignore_eos=True, max_tokens=8)
        put(**s, return_token_ids=True), put(**s, allowed_token_ids=[5, 6], max_tokens=6), put(**s, logit_bias={"2": 100}), put(**s, logit_bias={"2": 100}, ignore_eos=True)
        put(**s, stop_token_ids=[7], logit_bias={"7": 100}), put(**s, stop_token_ids=[7], logit_bias={"7": 100}, include_stop_str_in_output=True, min_tokens=2)
        put(**s, max_tokens=None), put(**s, prompt_logprobs=1), put(**s, prompt_logprobs=1, return_token_ids=True), put(**s, max_tokens=1), put(**s, top_k=1, temperature=1)
        put(**s, return_tokens_as_token_ids=True, prompt_logprobs=1), put(**s, truncate_prompt_tokens=1), put(**s, truncate_prompt_tokens=2, truncation_side="left")
        for so in COMMON["structured_outputs"]:
            if isinstance(so, dict) and stream:
                put(**s, structured_outputs=so, max_tokens=12)
        for rf in COMMON["response_format"]:
            if stream:
                put(**s, response_format=rf, max_tokens=12)
        put(**s, structured_outputs={"choice": ["a"]}, response_format={"type": "json_object"}), put(**s, structured_outputs={"choice": ["a"]}, response_format={"type": "text"})
        if "prompt" in base:
            for logprobs in (0, 1, 3):
                put(**s, logprobs=logprobs), put(**s, logprobs=logprobs, echo=True), put(**s, logprobs=logprobs, return_tokens_as_token_ids=True)
                put(**s, logprobs=logprobs, prompt=["a b c", [5, 6]]), put(**s, logprobs=logprobs, logprob_token_ids=[5, 6]), put(**s, logprobs=logprobs, echo=True, max_tokens=0)
            put(**s, echo=True), put(**s, echo=True, max_tokens=0), put(**s, echo=True, prompt=[5, 6, 7]), put(**s, echo=True, prompt=["a", "b"], n=2, temperature=1, seed=1)
            put(**s, echo=True, truncate_prompt_tokens=1), put(**s, echo=True, return_token_ids=True), put(**s, echo=True, return_token_ids=True, logprobs=1), put(**s, echo=True, logprobs=1, prompt_logprobs=2)
            put(**s, max_tokens=0), put(**s, prompt=["a", "b", "c"]), put(**s, prompt=["a", "x " * 3000]), put(**s, prompt=[[5], [8192]]), put(**s, echo=True, stop=["d"])
            put(**s, prompt=list(range(5, 2049)), max_tokens=4), put(**s, prompt=list(range(5, 2049)), max_tokens=None), put(**s, prompt=list(range(5, 2053)), max_tokens=1), put(**s, prompt=[5] * 2047, max_tokens=1), put(**s, prompt=[5] * 2047, max_tokens=2)
            put(**s, prompt=[5] * 2048, max_tokens=1), put(**s, prompt=[5] * 2048, truncate_prompt_tokens=-1), put(**s, prompt=[5] * 3000, truncate_prompt_tokens=100), put(**s, suffix="a", echo=True)
            put(**s, prompt="a", add_special_tokens=False), put(**s, skip_special_tokens=False, logit_bias={"2": 100}), put(**s, prompt=None, prompt_embeds=None), put(**s, use_beam_search=True, n=2), put(**s, use_beam_search=True, n=2, logprobs=1)
        else:
            for top in (0, 1, 3):
                put(**s, logprobs=True, top_logprobs=top), put(**s, logprobs=True, top_logprobs=top, return_tokens_as_token_ids=True), put(**s, logprobs=False, top_logprobs=top), put(**s, logprobs=None, top_logprobs=top)
            put(**s, logprobs=True), put(**s, logprobs=True, logprob_token_ids=[5, 6]), put(**s, max_tokens=2, max_completion_tokens=3), put(**s, use_beam_search=True, n=2)
            for choice in ONLY_CHAT["tool_choice"]:
                put(**s, tools=[TOOL], tool_choice=choice, max_tokens=40), put(**s, tool_choice=choice)
            for tools in ONLY_CHAT["tools"]:
                put(**s, tools=tools, tool_choice="none"), put(**s, tools=tools, tool_choice="required", max_tokens=30)
            put(**s, tools=[TOOL], tool_choice="required", structured_outputs={"choice": ["a"]}), put(**s, tools=[TOOL], tool_choice="required", response_format={"type": "json_object"}), put(**s, tools=[TOOL], parallel_tool_calls=False, tool_choice="required", max_tokens=60)
            put(**s, tools=[TOOL], logprobs=True, tool_choice="required", max_tokens=40), put(**s, tools=[TOOL], tool_choice="required", n=2, temperature=1, max_tokens=40, seed=1), put(**s, tools=[TOOL], tool_choice="required", max_tokens=40, return_token_ids=True)
            last = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]
            put(**s, messages=last), put(**s, messages=last, continue_final_message=True), put(**s, messages=last, continue_final_message=True, add_generation_prompt=False), put(**s, messages=last, add_generation_prompt=False)
            put(**s, messages=last, echo=True, add_generation_prompt=False), put(**s, messages=last, echo=True, continue_final_message=True, add_generation_prompt=False), put(**s, messages=last[:1], echo=True), put(**s, messages=last[:1], continue_final_message=True, add_generation_prompt=False)
            put(**s, messages=last, echo=True, logprobs=True, top_logprobs=1), put(**s, return_prompt_text=True), put(**s, add_special_tokens=True), put(**s, include_reasoning=False), put(**s, reasoning_effort="low", chat_template_kwargs={"reasoning_effort": "high"})
    return many


def requests():
    for path, base, own in (("/v1/completions", COMPLETION, ONLY_COMPLETION), ("/v1/chat/completions", CHAT, ONLY_CHAT)):
        for body in variants(base, COMMON | own):
            yield "POST", path, body
        for name in base:
            yield "POST", path, {k: v for k, v in base.items() if k != name}
        for body in needs_company(base, path):
            yield "POST", path, body
        for raw in (b"", b"{", b"[]", b"null", b"5", b'"x"', b"{}", b"{}{}", b"\xff", b"{\"a\":NaN}", b"\xef\xbb\xbf{}", b"{'a':1}", b"{\"a\":1,}", b"// x\n{}"):
            yield "POST", path, raw
    tokenize = {"model": "tiny", "prompt": "hello <|im_start|> w"}
    fields = {"prompt": ["", "a" * 5000, ["a"], [1]], "add_special_tokens": [False], "return_token_strs": [True], "model": ["nobody", "tiny-alias"],
              "messages": [CHAT["messages"]], "nonsense": [1], "chat_template": ["x"]}
    yield from (("POST", "/tokenize", body) for body in variants(tokenize, fields))
    chat = {"model": "tiny", "messages": CHAT["messages"]}
    fields = {k: ONLY_CHAT[k] for k in ("messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "mm_processor_kwargs", "media_io_kwargs")} | {
        "add_special_tokens": [True], "return_token_strs": [True], "prompt": ["x"], "tool_choice": ["none", "required", "x"]}
    yield from (("POST", "/tokenize", body) for body in variants(chat, fields))
    yield from (("POST", "/tokenize", body) for body in ({}, {"model": "tiny"}, {"prompt": "a"}, {"messages": []}))
    detokenize = {"model": "tiny", "tokens": [5, 6, 2, 1]}
    fields = {"tokens": [[], [8191], [8192], [-1], [2**31], [2**63], [1.0], [1.5], ["5"], [True], "x", [[1]]], "model": ["nobody", ""]}
    yield from (("POST", "/detokenize", body) for body in variants(detokenize, fields))
    yield "POST", "/detokenize", {}
    generate = {"token_ids": [5, 6], "sampling_params": {"max_tokens": 3, "temperature": 0}}
    fields = {"token_ids": [[], [8191], [8192], [-1], [5] * 2047, [5] * 2048], "sampling_params": [{}, {"max_tokens": 0}, {"temperature": 3}, {"max_tokens": 2, "logprobs": 1}, {"n": 2}, {"stop": ["a"]}, {"max_tokens": None}, {"bogus": 1}, {"max_tokens": 2, "prompt_logprobs": 1}],
              "stream": [True], "stream_options": [{"include_usage": True}], "model": ["nobody", "tiny"], "request_id": ["r"], "cache_salt": ["s", "a@b", ""], "priority": [1], "return_token_ids": [True]}
    yield from (("POST", "/inference/v1/generate", body) for body in variants(generate, fields))
    for path in ("/v1/completions/render", "/v1/chat/completions/render"):
        base = CHAT if "chat" in path else COMPLETION
        yield from (("POST", path, body) for body in variants(base, {"max_tokens": [0], "model": ["nobody"]}))
    for path in ("/v1/chat/completions/batch",):
        base = {"model": "tiny", "messages": [CHAT["messages"], CHAT["messages"]], "max_tokens": 3, "temperature": 0}
        yield from (("POST", path, body) for body in variants(base, {"messages": [[], CHAT["messages"], [[]], [CHAT["messages"], []]], "n": [2], "stream": [True], "tools": [[TOOL]], "logprobs": [True], "use_beam_search": [True]}))
    for path in ("/v1/models", "/version", "/health", "/ping", "/load", "/tokenizer_info", "/kv_event_sources", "/is_sleeping", "/is_paused", "/get_world_size", "/weight_info", "/nothing", "/v1/models/tiny", "/v1/completions", "/v1", "/", "/v1/",
                 "/server_info", "/server_info?config_format=json", "/server_info?config_format=x"):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            if (method, path) != ("POST", "/v1/completions"):
                yield method, path, None
    for path in ("/sleep?level=9", "/sleep?level=x", "/sleep?level=1&mode=x", "/wake_up?tags=x", "/pause?mode=x", "/pause?clear_cache=x", "/reset_prefix_cache?reset_running_requests=x", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/abort_requests", "/collective_rpc",
                 "/release_kv_cache_memory?x", "/start_profile", "/stop_profile", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/weight_checker", "/init_weight_transfer_engine"):
        yield "POST", path, None
        yield "POST", path, {}
    for body in ({"request_ids": []}, {"request_ids": ["x"]}, {"request_ids": None}, {"request_ids": "x"}, {"request_ids": [5]}, [], "x", b"{"):
        yield "POST", "/abort_requests", body
    for body in ({"method": "x"}, {"method": 5}, {"method": None}, {"args": []}, {"method": "x", "args": "y"}, {"method": "x", "kwargs": []}, {"method": "x", "timeout": "a"}, b"{"):
        yield "POST", "/collective_rpc", body
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        for body in ({}, {"lora_name": "a"}, {"lora_name": "a", "lora_path": "b"}, {"lora_name": "", "lora_path": "b"}, {"lora_name": 5, "lora_path": "b"}, {"lora_name": None, "lora_path": None}, [], b"{", {"lora_name": "a", "lora_int_id": 3}):
            yield "POST", path, body
    for path in ("/v1/embeddings", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/invocations", "/generative_scoring", "/v1/audio/transcriptions", "/v1/audio/translations"):
        for body in ({}, {"model": "tiny", "input": "a", "prompt": "a", "messages": CHAT["messages"], "max_tokens": 2}):
            yield "POST", path, body


def random_requests(count, seed):
    r = random.Random(seed)
    for _ in range(count):
        path, base, own = r.choice([("/v1/completions", COMPLETION, ONLY_COMPLETION), ("/v1/chat/completions", CHAT, ONLY_CHAT)])
        fields = COMMON | own
        body = copy.deepcopy(base) | {"stream": r.random() < 0.5}
        for name in r.sample(sorted(fields), r.randrange(2, 5)):
            body[name] = r.choice(fields[name] if r.random() < 0.85 else TYPES)
        yield "POST", path, body


def spelled(body):
    return repr(body) if isinstance(body, bytes) else json.dumps(body)


def record(reference, work, file):
    """At most four requests for each path, field and kind of error."""
    kinds, kept = {}, []
    paths = {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/inference/v1/generate"}
    for method, path, body in work:
        if path not in paths or method != "POST" or not isinstance(body, dict) or len(spelled(body)) > 1500:
            continue
        status, _, data = send(reference, method, path, body)
        if not 400 <= status < 500:
            continue
        expected = {"status": status, **error(json.loads(data))}
        kind = (path, *expected.values())
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= 4:
            kept.append({"path": path, "request": json.dumps(body), **expected})
    file.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in kept) + "\n]\n")
    print(f"{len(kept)} refusals of {len(work)} requests")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, metavar="URL")
    parser.add_argument("--ours", metavar="URL")
    parser.add_argument("--record", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="that many random requests instead of all others")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="REGEX", help="of path, space, body")
    parser.add_argument("--out", metavar="FILE", help="for the differences")
    args = parser.parse_args()
    work = list(requests()) if not args.random else list(random_requests(args.random, args.seed))
    work = [item for item in work if re.search(args.only, f"{item[1]} {spelled(item[2])}")]
    if args.record:
        return record(args.reference, work, args.record)
    if not args.ours:
        parser.error("--ours or --record is needed")

    def ask(item):
        a, b = (send(base, *item) for base in (args.reference, args.ours))
        return item, a, b, differences(view(a), view(b))
    found = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item, a, b, difference in pool.map(ask, work):
            if difference:
                found.append((item, a, b, difference))
    sink = open(args.out, "w") if args.out else sys.stdout
    for (method, path, body), a, b, difference in found:
        print(f"\n## {method} {path} {spelled(body)[:300]}", file=sink)
        for line in difference[:6]:
            print("   ", line, file=sink)
        if a[0] >= 400:
            print("    py:", message(a[2]), file=sink)
        if b[0] >= 400:
            print("    sw:", message(b[2]), file=sink)
    print(f"{len(work)} requests, {len(found)} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
