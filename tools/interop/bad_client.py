#!/usr/bin/env python3
"""Sends nasty requests to a real vLLM engine behind `vllm-swift`: extreme numbers, odd lists, constraints that do not compile.

    tools/interop/bad_client.py --peers DIR --requests 300 --seed 1

vLLM's engine dies of some requests and goes deaf of others, so the frontend must not let them through. Exits with 1 when an
answer is 5xx or late, or when a healthy request between them changes its answer. --verbose prints every request.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/e2e"))  # its HTTP client and process observation

import cell  # noqa: E402
import matrix  # noqa: E402
import peers  # noqa: E402

VOCABULARY = 8192
LIMIT = 120.0  # seconds; the first request with logprobs makes the engine compile something
INTEGERS = [0, 1, 2, 3, -1, -2, 7, 100, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -2**31, -2**63, -2**63 - 1, 1e30, 1.5, 2.0, "3", True, None, []]
FLOATS = [0, 0.0, 1, 0.5, -0.0, 1e-300, 1e-9, 0.005, 0.01, 1 - 1e-9, 1.0000001, 2, 2.0001, -2, -2.0001, 1e308, 3.5e38, -1e308, "0.5", None, float("nan"), float("inf"), {}]
TEXTS = ["", " ", "a", "\n", "\0", "é", "日本語", "🙂" * 9, "\u200d", "e\u0301", "x" * 3000, "<|im_end|>", "<|im_start|>assistant", "\\", "\"", "</tool_call>", "\ufeff", "\ud800"]
REGEXES = [
    "[ab]{3}", "(", ")", "[", "]", "*", "+a", "a**", "a{5,1}", "a{100000}", "a{2147483648}", "a{,3}", "a{x}", "(?=x)y", "(?!x)y", "(?<n>a)\\k<n>",
    "(?P<n>a)", "\\1", "(a)\\1", "[z-a]", "^a$", "a^b$c", "", "\\p{L}+", "\\u{110000}", "\\u{61}", "\\x4", "\\xzz", "(?i)abc", "\\bfoo\\b", "[[:alpha:]]+",
    "(a+)+b", "((((((((((a))))))))))" * 20, "a|", "|", "()", "(|a)", "[^\\d\\D]", "[]", "[^]", "\\", "a\\", "\\d{3}-\\w+\\s?", ".*", ".{0,5000}", "(.|\\n){1000}",
    "日+", "\0", "[\\]", "a??", "(?:", "(?#c)a", "\\Q", "\\cA", "[a-\\d]", "$", "^", "a{0}", "a{0,0}", "\\8", "[\ud800]", "(?>a)", "\\h", "x{1,2}{3}",
    "((a{1,1000}){1,1000}){1,1000}", "(a+)+$", "(x+x+)+y", "(a|aa)+$", "(.*)*b", "(a{1,300}|b{1,300}){300}", "[a-z]{1,9999}[0-9]{1,9999}", "(\\w+\\s?)*!", "((((a?){50}){50}){50}){50}"]
GRAMMARS = [
    'root ::= "a" | "b"', "root ::= root", 'root ::= root "a" | "b"', 'root ::= "a" root', "root ::= missing", 'root ::= ""', "root ::=", "root", "", " ",
    'root ::= ("a"', 'root ::= "a")', 'root ::= [', 'root ::= [z-a]', 'root ::= "\\q"', 'root ::= "a"{3}', 'root ::= "a"{3,1}', 'root ::= "a"{99999}',
    'root ::= a\na ::= b\nb ::= a', 'root ::= "a"\nroot ::= "b"', 'start: "a"', 'main ::= "a"', 'root ::= "a" |', 'root ::= | "a"', "root ::= 'a'",
    'root ::= [^]', 'root ::= "a"**', 'root ::= (("a"*)*)*', 'root ::= "日"', 'root ::= "\\u12"', 'root ::= "\\x00"', 'root ::= "a" # c', "root ::= " + '"a" ' * 3000,
    "root ::= " + "(" * 500 + '"a"' + ")" * 500, 'root ::= TagDispatch(("<a>", b))\nb ::= "x"', 'root ::= "a" (?= "b")', 'root := "a"', 'root ::= a-b\na-b ::= "x"',
    'root ::= Token(5)', 'root ::= Token(99999999)', 'root ::= "\n"', 'root ::= [\\]', 'root ::= "a"\n\nx', 'ROOT ::= "a"', 'root ::= "a" ::= "b"', "\0"]


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}}}, True, False, {}, [], 5, "x", '{"type": "integer"}', '{"type": ', {"type": "text"}, {"type": []}, {"type": 5},
    {"type": ["string", "null"]}, {"$ref": "#"}, {"$ref": "#/definitions/x"}, {"$ref": "http://example.com/x"}, {"$ref": 5}, {"$ref": "x"},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    {"type": "string", "pattern": "("}, {"type": "string", "pattern": "(?=a)"}, {"type": "string", "pattern": "\\d{3}"}, {"type": "string", "pattern": 5},
    {"type": "string", "minLength": 5, "maxLength": 1}, {"type": "string", "maxLength": "x"}, {"type": "string", "maxLength": -1}, {"type": "string", "minLength": 2**40},
    {"type": "string", "format": "nonsense"}, {"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 10, "maximum": 1}, {"type": "integer", "minimum": -2**70},
    {"type": "integer", "exclusiveMinimum": True}, {"type": "number", "multipleOf": 0.1}, {"type": "number", "minimum": 1e400 if False else 1e308}, {"enum": []}, {"enum": 5},
    {"enum": [1, "a", None, {"b": []}]}, {"const": {"a": [1]}}, {"type": "array", "minItems": 10**9}, {"type": "array", "minItems": 3, "maxItems": 1}, {"type": "array", "minItems": -1},
    {"type": "array", "items": False}, {"type": "array", "prefixItems": []}, {"type": "array", "contains": {"type": "string"}}, {"type": "array", "uniqueItems": True}, {"type": "array", "items": [{}, 5]},
    {"not": {}}, {"if": {}, "then": {"type": "string"}}, {"patternProperties": {"(": {}}}, {"patternProperties": {"^a": {"type": "string"}}}, {"propertyNames": {"pattern": "["}},
    {"type": "object", "required": ["x"]}, {"type": "object", "required": "x"}, {"type": "object", "properties": []}, {"type": "object", "properties": {"a": 5}}, {"type": "object", "minProperties": 5, "maxProperties": 1},
    {"type": "object", "additionalProperties": 5}, {"type": "object", "dependentRequired": {"a": ["b"]}}, {"unevaluatedProperties": False}, {"allOf": []}, {"anyOf": []}, {"oneOf": [5]}, {"anyOf": {}},
    {"allOf": [{"type": "string"}, {"type": "integer"}]}, nested(60), nested(400), {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(800)}}, {"enum": ["x" * 9 + str(i) for i in range(3000)]},
    {"type": "string", "enum": ["\ud800"]}, {"title": 5, "type": "null"}, {"properties": {"\0": {}}}, {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}]
CHOICES = [["yes", "no"], [], [""], ["", "a"], ["a"] * 500, [f"choice {i}" for i in range(5000)], ["\n", "\t\"\\"], ["\0"], ["\ud800"], ["日本", "🙂"], ["x" * 20000], [5], "a", [None], {"a": 1}, ["a|b", "\"|\""], ["]", "["]]
TAGS = [
    "", "x", "{}", "[]", '{"type":"structural_tag"}', '{"type":"structural_tag","format":{"type":"nonsense"}}', '{"type":"structural_tag","format":{"type":"json_schema","json_schema":{"type":"integer"}}}',
    '{"type":"structural_tag","format":{"type":"regex","pattern":"("}}', '{"type":"structural_tag","format":{"type":"grammar","grammar":"root ::="}}', '{"type":"structural_tag","format":{"type":"or","elements":[]}}',
    '{"type":"structural_tag","format":{"type":"tag","begin":"a","content":{"type":"any_text"},"end":""}}', '{"type":"structural_tag","format":{"type":"triggered_tags","triggers":[],"tags":[]}}',
    '{"type":"structural_tag","format":{"type":"triggered_tags","triggers":["<a"],"tags":[{"begin":"<b>","content":{"type":"any_text"},"end":"</b>"}]}}', '{"type":"structural_tag","format":{"type":"const_string","value":""}}',
    '{"structures":[{"begin":"<a>","schema":{"type":"integer"},"end":"</a>"}],"triggers":["<a"]}', '{"structures":[],"triggers":[]}', '{"structures":[{"begin":5}],"triggers":["x"]}',
    '{"type":"structural_tag","format":{"type":"sequence","elements":[{"type":"const_string","value":"a"}]}}', '{"type":"structural_tag","format":{"type":"token","token":99999999}}']


class Nasty:
    """One seeded stream of requests: (path, body as JSON text)."""

    def __init__(self, seed, context):
        self.random, self.context = random.Random(seed), context

    def one(self):
        r = self.random
        chat = r.random() < 0.4
        body = {"model": matrix.MODEL_NAME, "max_tokens": r.choice([1, 2, 5, 8])}
        # Mostly one thing is odd: of several the first one is refused, and the others are not looked at.
        plain = r.random() < 0.75
        if chat:
            body["messages"] = [{"role": "user", "content": "hi"}] if plain else self.messages()
        else:
            body["prompt"] = "def add(" if plain else self.prompt()
        for _ in range(r.choice([0, 1, 1, 1, 2, 4])):
            name = r.choice(FIELDS)
            body[name] = getattr(self, name)() if hasattr(self, name) else self.scalar(name)
        if r.random() < 0.45:
            self.constrain(body, chat)
        if r.random() < 0.3:
            body["stream"] = True
        path = "/v1/chat/completions" if chat else "/v1/completions"
        return path, json.dumps(body)  # lone surrogates as escapes, NaN as Python writes it

    def ids(self):
        r = self.random
        pools = [[], [0], [2], [1, 2, 3], [VOCABULARY - 1], [VOCABULARY], [-1], [2**31], [2**63], [1.5], ["a"], [None], list(range(VOCABULARY)), [5] * 3000, r.sample(range(VOCABULARY), 300), [True], None]
        return r.choice(pools)

    def prompt(self):
        r = self.random
        length = r.choice([1, 3, 200, self.context - 2, self.context - 1, self.context, self.context + 1, 3 * self.context])
        return r.choice(["def add(", "def add(", "def add(", r.choice(TEXTS), [r.randrange(VOCABULARY) for _ in range(length)], [265] * length, " a" * length,
                         self.ids(), ["a", "def"], [[5, 6], [7]], [[], [5]], [], [""], None, 5])

    def messages(self):
        r = self.random
        text = r.choice(["hi", "hi", r.choice(TEXTS), " a" * r.choice([5, self.context - 10, self.context, 2 * self.context])])
        return r.choice([[{"role": "user", "content": text}]] * 4 + [
            [], [{}], None, [{"role": r.choice(TEXTS), "content": text}], [{"role": "user", "content": [{"type": "text", "text": text}]}], [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": r.choice(["{}", "{", "", "5"])}}]}], [{"role": "tool", "content": text}]])

    def scalar(self, name):
        return self.random.choice(FLOATS if name in FLOAT_FIELDS else INTEGERS)

    def stop(self):
        r = self.random
        return r.choice([r.choice(TEXTS), [r.choice(TEXTS) for _ in range(r.randrange(7))], ["a"] * 500, None, 5])

    def bad_words(self):
        r = self.random
        return r.choice([[r.choice(TEXTS) for _ in range(r.randrange(1, 7))], ["a b c d e"] * 50, ["x" * 5000], [], [" "], [5], None])

    def logit_bias(self):
        r = self.random
        value = r.choice([0, 1, -100, 100, 1e308, -1e308, "5", None, float("nan"), float("inf")])
        return r.choice([{str(r.randrange(VOCABULARY)): value}, {str(i): r.choice([-100, 1]) for i in range(VOCABULARY)}, {str(VOCABULARY): 1}, {"-1": 1}, {"x": 1}, {"1.5": 1}, {" 5 ": 1}, {}, [], {"99999999999999999999": 1}])

    stop_token_ids = allowed_token_ids = logprob_token_ids = ids

    def flag(self):
        return self.random.choice([True, True, False, None, "true", 5])

    ignore_eos = echo = return_token_ids = skip_special_tokens = include_stop_str_in_output = add_special_tokens = flag
    detokenize = use_beam_search = logprobs = flag

    def text(self):
        return self.random.choice(TEXTS + [5, None])

    cache_salt = request_id = user = session_id = suffix = text

    def extra(self):
        return self.random.choice([{}, {"a": 1}, {"a": 2**63}, {"a": 2**64}, {"a": -2**63 - 1}, {"a": [1.5, "x", 2**70]}, {"a": {"b": {"c": None}}}, {"a": float("inf")}, {"": ""}, [], 5, {"\0": True}, nested(200),
                                   {"do_remote_decode": True}, {"do_remote_prefill": True, "remote_engine_id": 5}, {"kv_transfer_params": {"x": 1}}])

    vllm_xargs = kv_transfer_params = ec_transfer_params = chat_template_kwargs = extra

    def repetition_detection(self):
        r = self.random
        return r.choice([{"max_pattern_size": r.choice(INTEGERS), "min_pattern_size": r.choice(INTEGERS), "min_count": r.choice(INTEGERS)},
                         {"max_pattern_size": 3, "min_pattern_size": 1, "min_count": 2}, {"max_pattern_size": 2**31 - 1, "min_pattern_size": 1, "min_count": 2**31 - 1}, {}, 5])

    def stream_options(self):
        return self.random.choice([{"include_usage": True}, {"continuous_usage_stats": True}, {}, None, 5, {"include_usage": 5}])

    def tools(self):
        r = self.random
        return r.choice([[], None, 5] + [[{"type": "function", "function": {"name": r.choice(["add", "a b", *TEXTS]), "parameters": r.choice(SCHEMAS), "strict": r.choice([True, False, None])}}]] * 8)

    def tool_choice(self):
        return self.random.choice(["none", "auto", "required", "required", "maybe", {"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": ""}}, {}, 5])

    def constrain(self, body, chat):
        r = self.random
        kind = r.choice(["json", "regex", "choice", "grammar", "json_object", "structural_tag", "response_format", "tools", "two"])
        pools = {"json": SCHEMAS, "regex": REGEXES, "choice": CHOICES, "grammar": GRAMMARS, "json_object": [True, False, 5], "structural_tag": TAGS}
        if kind == "response_format":
            body["response_format"] = r.choice([
                {"type": "json_object"}, {"type": "text"}, {"type": "x"}, {}, 5, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}},
                *[{"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}} for schema in r.sample(SCHEMAS, 6)],
                *[json.loads(tag) for tag in TAGS[2:]]])
        elif kind == "tools" and chat:
            body["tools"], body["tool_choice"] = self.tools(), self.tool_choice()
        else:
            names = r.sample(sorted(pools), 2) if kind == "two" else [kind if kind in pools else "regex"]
            body["structured_outputs"] = {name: r.choice(pools[name]) for name in names}
            if r.random() < 0.2:
                body["structured_outputs"] |= r.choice([{"whitespace_pattern": r.choice(REGEXES)}, {"disable_any_whitespace": True}, {"disable_additional_properties": True}, {"_backend": "guidance"}, {"backend": "x"}])


FLOAT_FIELDS = ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "length_penalty"]
FIELDS = FLOAT_FIELDS + [
    "top_k", "seed", "max_tokens", "max_completion_tokens", "min_tokens", "n", "best_of", "logprobs", "top_logprobs", "prompt_logprobs", "truncate_prompt_tokens", "priority", "thinking_token_budget",
    "stream_interval", "stop", "bad_words", "logit_bias", "stop_token_ids", "allowed_token_ids", "logprob_token_ids", "ignore_eos", "echo", "return_token_ids", "skip_special_tokens", "detokenize", "cache_salt",
    "request_id", "user", "session_id", "suffix", "vllm_xargs", "kv_transfer_params", "ec_transfer_params", "chat_template_kwargs", "repetition_detection", "stream_options", "include_stop_str_in_output", "add_special_tokens", "use_beam_search"]


def send(port, path, body):
    """(status, whole answer); status 0 = no answer in time, or a cut one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=pathlib.Path, default=os.environ.get("PEERS"), required="PEERS" not in os.environ)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / ".build/release", help="folder of vllm-swift")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip", type=int, default=0, help="do not send that many of the first ones")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    folder = peers.Peers(args.peers)
    row = matrix.real_supervisor(matrix.Own(args.bin.resolve(), pathlib.Path()), folder)
    service = cell.Cell(row, folder.model)
    counts, found = collections.Counter(), []
    try:
        service.check_start()
        service.check_completions()
        healthy = json.dumps(cell.COMPLETION | {"model": matrix.MODEL_NAME})
        wanted = service.greedy["completion"][0]
        nasty = Nasty(args.seed, service.context)
        for number in range(args.requests):
            path, body = nasty.one()
            if number < args.skip:
                continue
            status, answer = send(service.port, path, body)
            counts[status] += 1
            if args.verbose:
                print(number, status, path, body[:400], answer[:200], flush=True)
            # What fails after a stream has begun comes as an event.
            if status == 0 or status >= 500 or (status == 200 and b'"error":{' in answer):
                found.append(number)
                print(f"#{number}: {path} {body[:1500]}\n   HTTP {status} {answer[-400:]}", flush=True)
            code, text = send(service.port, "/v1/completions", healthy)
            if code != 200 or json.loads(text)["choices"][0]["text"] != wanted:
                found.append(number)
                print(f"#{number}: {path} {body[:1500]}\n   after it the healthy request gets HTTP {code} {text[:300]}", flush=True)
                if code != 200:
                    break
        alive = all(child.poll() is None for child in service.children)
    finally:
        service.close()
    print(f"seed {args.seed}: {sum(counts.values())} requests, by status: {dict(sorted(counts.items()))}; alive: {alive}; log {service.log}")
    print(f"found: {found}" if found else "nothing found")
    return 1 if found or not alive else 0


if __name__ == "__main__":
    sys.exit(main())
