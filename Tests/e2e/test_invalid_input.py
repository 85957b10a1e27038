"""Input of every wrong kind gives a clear error at once, and the next request works."""

import json
import os
import shutil
import socket

import pytest

import http_client
from server import DEFAULT_MODEL

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def assert_works(server):
    answer = server.chat("Hello")
    assert answer.status == 200 and "Hello!" in answer.json()["choices"][0]["message"]["content"]


def assert_error(answer, status=400):
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert error["code"] == status and error["type"] and len(error["message"]) > 5
    return error


BAD_BODIES = {
    "empty": b"", "not json": b"hello", "truncated": b'{"messages": [{"role": "user"', "trailing": b'{"messages": []} x', "array": b"[]", "number": b"5",
    "null": b"null", "not utf-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "nul bytes": b"\0" * 100,
    "deep": b"[" * 100_000 + b"]" * 100_000, "deep value": b'{"messages": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("path", [CHAT, COMPLETION, "/tokenize", "/detokenize"])
@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bad_json(server, path, kind):
    answer = server.post(path, BAD_BODIES[kind])
    assert answer.status == 400, (answer.status, answer.body)
    assert answer.json()
    assert_works(server)


BAD_CHATS = [
    {}, {"messages": None}, {"messages": []}, {"messages": "Hello"}, {"messages": [5]}, {"messages": [{}]}, {"messages": [{"role": 1, "content": "x"}]},
    {"messages": [{"role": "user", "content": 5}]}, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
    {"max_tokens": "many"}, {"max_tokens": 0}, {"max_tokens": -5}, {"max_tokens": 1.5}, {"max_tokens": 10**30}, {"temperature": "hot"}, {"temperature": -0.1},
    {"temperature": 1e400}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -2}, {"top_k": 2.5}, {"min_p": 2}, {"presence_penalty": 3}, {"frequency_penalty": -3},
    {"repetition_penalty": 0}, {"seed": 2**80}, {"seed": "x"}, {"n": 0}, {"n": -1}, {"n": "two"}, {"stop": 5}, {"stop": ["a"] * 50}, {"stop": [""]},
    {"stop_token_ids": ["x"]}, {"stop_token_ids": [10**9]}, {"logit_bias": {"x": 1}}, {"logit_bias": {"999999": 1}}, {"logit_bias": 5}, {"logprobs": "perhaps"},
    {"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 1000}, {"stream_options": {"include_usage": True}}, {"tools": "x"}, {"tools": [{}]},
    {"tools": [{"type": "function"}]}, {"tool_choice": "sometimes"}, {"tool_choice": "auto"}, {"allowed_token_ids": []}, {"allowed_token_ids": [10**9]},
    {"min_tokens": -1}, {"min_tokens": 10, "max_tokens": 5}, {"response_format": {"type": "poem"}}, {"response_format": {"type": "json_schema"}},
    {"prompt_logprobs": -5}, {"truncate_prompt_tokens": -2}, {"chat_template_kwargs": 5}, {"ignore_eos": "perhaps"}, {"stream": "perhaps"},
    {"add_generation_prompt": True, "continue_final_message": True},
]


@pytest.mark.parametrize("fields", BAD_CHATS, ids=lambda fields: json.dumps(fields)[:60])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_bad_chat_fields(server, fields, stream):
    body = ({} if not fields or "messages" in fields else {"messages": MESSAGES}) | {"temperature": 0, "max_tokens": 5} | fields
    if stream and "stream" not in fields:
        if "stream_options" in fields:
            pytest.skip("allowed with stream")
        body["stream"] = True
    text = json.dumps(body).replace("Infinity", "1e400").encode()
    assert_error(server.post(CHAT, text))


BAD_PROMPTS = [None, "", [], 5, {"a": 1}, [None], [[]], [1.5], [-1], [10**9], [2**70], ["x", 5], [[1], ["x"]], [[1, 10**9]]]


@pytest.mark.parametrize("prompt", BAD_PROMPTS, ids=lambda prompt: json.dumps(prompt)[:40])
def test_bad_prompts(server, prompt):
    assert_error(server.post(COMPLETION, {"prompt": prompt, "max_tokens": 4}))
    assert_works(server)


def test_out_of_vocabulary_ids(server):
    vocabulary = json.loads((DEFAULT_MODEL / "config.json").read_text())["vocab_size"]
    assert server.post(COMPLETION, {"prompt": [5, vocabulary - 1], "max_tokens": 2}).status == 200
    assert "vocabulary" in assert_error(server.post(COMPLETION, {"prompt": [5, vocabulary], "max_tokens": 2}))["message"].lower()
    assert_works(server)


def test_overlong_prompt(server):
    limit = server.get("/v1/models").json()["data"][0]["max_model_len"]
    for path, body in [(COMPLETION, {"prompt": [5] * limit, "max_tokens": 1}), (COMPLETION, {"prompt": "word " * (2 * limit), "max_tokens": 1}),
                       (CHAT, {"messages": [{"role": "user", "content": "word " * (2 * limit)}]}),
                       (CHAT, {"messages": [{"role": "user", "content": "word " * 200_000}], "stream": True})]:
        assert str(limit) in assert_error(server.post(path, body))["message"]
    assert_works(server)


def test_longest_prompt_works(server):
    limit = server.get("/v1/models").json()["data"][0]["max_model_len"]
    answer = server.post(COMPLETION, {"prompt": [5] * (limit - 4), "max_tokens": 100, "temperature": 0, "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 4 and answer["choices"][0]["finish_reason"] == "length"


def test_unknown_paths_and_methods(server):
    assert server.get("/v1/nothing").status == 404
    assert server.get(CHAT).status == 405
    assert server.post("/health", b"").status == 405
    assert_works(server)


def test_content_type_is_required(server):
    answer = server.post(CHAT, {"messages": MESSAGES}, headers={"Content-Type": "text/plain"})
    assert answer.status == 400
    assert_works(server)


RAW = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200, "no request": b"\r\n\r\n\r\n", "bad version": b"GET / HTTP/9.9\r\n\r\n",
    "bad length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    "negative length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "bad chunk": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("kind", RAW)
def test_malformed_http(server, kind):
    """The connection is answered with 400 or closed; it neither hangs nor harms others."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(RAW[kind])
        connection.shutdown(socket.SHUT_WR)
        received = http_client.read_all(connection)
    assert not received or received.split(b" ")[1][:1] in (b"4", b"5"), received[:200]
    assert_works(server)


def test_huge_header_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Filler: ")
            for _ in range(128):
                connection.sendall(b"x" * 65536)
            connection.sendall(b"\r\n\r\n")
            answer = connection.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
    assert not answer or b" 4" in answer.split(b"\r\n")[0], answer[:100]
    assert_works(server)


# ---- models that cannot be loaded -----------------------------------------------------------------------------------

@pytest.fixture
def broken_model(tmp_path):
    """A copy of the embedded model to break."""
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, folder)
    return folder


def assert_start_fails(start_server, *args, words):
    server = start_server(*args, wait=False)
    code = server.wait_exit(20)
    log = server.log()
    assert code not in (0, None) and code > 0, f"exit code {code}\n{log}"
    for word in words:
        assert word.lower() in log.lower(), f"{word!r} is not in the log:\n{log}"
    server.assert_gone()


def test_missing_model_folder(start_server, tmp_path):
    assert_start_fails(start_server, str(tmp_path / "no-such-model"), words=["no-such-model"])


def test_folder_without_a_model(start_server, tmp_path):
    assert_start_fails(start_server, str(tmp_path), words=["config.json"])


def test_truncated_safetensors(start_server, broken_model):
    weights = broken_model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert_start_fails(start_server, str(broken_model), words=["model.safetensors"])


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"{}", b"\x02" + b"\0" * 7 + b"{}", b"\x05" + b"\0" * 7 + b"hello"],
                         ids=["empty", "all ones", "huge", "no tensors", "no json"])
def test_safetensors_with_a_bad_header(start_server, broken_model, header):
    (broken_model / "model.safetensors").write_bytes(header)
    assert_start_fails(start_server, str(broken_model), words=["safetensors"])


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_unknown_architecture(start_server, broken_model):
    change_config(broken_model, architectures=["FancyNewForCausalLM"], model_type="fancy_new")
    assert_start_fails(start_server, str(broken_model), words=["FancyNewForCausalLM"])


@pytest.mark.parametrize("fields", [{"hidden_size": 256}, {"num_hidden_layers": 7}, {"vocab_size": 5000}, {"num_attention_heads": 5}, {"hidden_size": -1},
                                    {"num_key_value_heads": 0}, {"num_hidden_layers": "six"}], ids=json.dumps)
def test_config_that_does_not_fit_the_weights(start_server, broken_model, fields):
    change_config(broken_model, **fields)
    assert_start_fails(start_server, str(broken_model), words=[])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_damaged_json_files(start_server, broken_model, name):
    (broken_model / name).write_text('{"truncated": ')
    assert_start_fails(start_server, str(broken_model), words=[name])


def test_unknown_option_hints_at_the_nearest(start_server):
    assert_start_fails(start_server, "--max-model-length", "100", words=["--max-model-length", "--max-model-len"])


@pytest.mark.parametrize("args", [["--max-model-len", "0"], ["--max-model-len", "many"], ["--max-num-seqs", "-1"], ["--dtype", "float3"], ["--frontend", "nope"],
                                  ["--threads", "0x"]], ids=" ".join)
def test_bad_option_values(start_server, args):
    assert_start_fails(start_server, *args, words=[args[0]])
