"""The official Python client works: chat, streams, usage, logprobs, token ids, several choices, tools, reasoning, errors."""

import json

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the current weather in a given city",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}}}


def test_models_lists_the_served_model(client):
    card = client.models.list().data[0]
    assert card.id and card.object == "model"
    assert card.model_extra["max_model_len"] >= 1024


def test_served_model_name_is_used_everywhere(start_server):
    server = start_server("--served-model-name", "first", "second")
    assert [card["id"] for card in server.get("/v1/models").json()["data"]] == ["first", "second"]
    for name in ("first", "second"):
        assert server.chat("Hello", model=name).json()["model"] == "first"
    assert server.chat("Hello", model="third").status == 404


def test_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "What is 2 + 3?"}], temperature=0)
    assert "2 + 3 = 5" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_with_usage(client, model):
    plain = client.chat.completions.create(model=model, messages=HELLO, temperature=0)
    stream = client.chat.completions.create(model=model, messages=HELLO, temperature=0, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage == plain.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_without_usage_has_none(client, model):
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, temperature=0, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_chat_logprobs(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert entry.logprob <= 0
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs), "greedy takes the most likely token"
        assert len(entry.top_logprobs) == 3
    spelled = b"".join(bytes(entry.bytes) for entry in entries if not entry.token.startswith("<|"))
    assert spelled.decode() == answer.choices[0].message.content


def test_completion_logprobs(client, model):
    answer = client.completions.create(model=model, prompt="The capital of France is", max_tokens=6, temperature=0, logprobs=2)
    logprobs = answer.choices[0].logprobs
    count = answer.usage.completion_tokens
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == count
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == value == max(top.values())
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset == sorted(logprobs.text_offset)


def test_completion_stream_equals_plain(client, model):
    request = {"model": model, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}
    plain = client.completions.create(**request).choices[0]
    chunks = list(client.completions.create(**request, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == plain.text
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [plain.finish_reason]


def test_token_id_prompt_equals_text_prompt(server, client, model):
    text = "The capital of France is"
    ids = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": ids}).json()["prompt"] == text
    by_text = client.completions.create(model=model, prompt=text, max_tokens=8, temperature=0)
    by_ids = client.completions.create(model=model, prompt=ids, max_tokens=8, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.usage.prompt_tokens == by_text.usage.prompt_tokens == len(ids)


def test_prompt_list_gives_one_choice_each(client, model):
    prompts = ["The capital of France is", "The capital of Japan is", "Hello"]
    together = client.completions.create(model=model, prompt=prompts, max_tokens=8, temperature=0)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    for prompt, choice in zip(prompts, together.choices):
        assert client.completions.create(model=model, prompt=prompt, max_tokens=8, temperature=0).choices[0].text == choice.text


def test_echo_returns_the_prompt_first(client, model):
    answer = client.completions.create(model=model, prompt="The capital of France is", max_tokens=4, temperature=0, echo=True)
    assert answer.choices[0].text.startswith("The capital of France is")
    assert len(answer.choices[0].text) > len("The capital of France is")


def test_n_choices(client, model):
    request = {"model": model, "messages": HELLO, "n": 2, "temperature": 1.5, "seed": 7, "max_tokens": 16}
    answer = client.chat.completions.create(**request)
    assert [choice.index for choice in answer.choices] == [0, 1]
    streamed = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == {choice.index: choice.message.content or "" for choice in answer.choices}, "a seed fixes the answers"


def test_seed_repeats_and_seeds_differ(client, model):
    def sample(seed):
        return client.completions.create(model=model, prompt="Hello", max_tokens=24, temperature=1.8, seed=seed).choices[0].text
    texts = [sample(seed) for seed in range(8)]
    assert texts == [sample(seed) for seed in range(8)]
    assert len(set(texts)) > 1


def test_stop_string_ends_before_itself(client, model):
    request = {"model": model, "messages": [{"role": "user", "content": "Count from 1 to 10."}], "temperature": 0}
    answer = client.chat.completions.create(**request, stop=["5, 6"])
    assert answer.choices[0].message.content == "1, 2, 3, 4, "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra["stop_reason"] == "5, 6"
    chunks = client.chat.completions.create(**request, stop=["5, 6"], stream=True)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "1, 2, 3, 4, "


def test_max_tokens_ends_with_length(client, model):
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Count to 30."}], temperature=0, max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_ignore_eos_runs_to_the_limit(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=100, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 100 and answer.choices[0].finish_reason == "length"


def test_logit_bias_bans_a_token(server, client, model):
    first = client.completions.create(model=model, prompt="The capital of France is", max_tokens=1, temperature=0, extra_body={"return_token_ids": True})
    token = first.choices[0].model_extra["token_ids"][0]
    banned = client.completions.create(model=model, prompt="The capital of France is", max_tokens=1, temperature=0, logit_bias={str(token): -100},
                                       extra_body={"return_token_ids": True})
    assert banned.choices[0].model_extra["token_ids"][0] != token


def test_unicode_streams_without_broken_characters(client, model):
    text = "café 🙂 日本"
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": f"Repeat after me: {text}"}], temperature=0, stream=True)
    deltas = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert "".join(deltas) == text
    assert not any("\ufffd" in delta for delta in deltas)


def test_stream_helper(client, model):
    with client.chat.completions.stream(model=model, messages=HELLO, temperature=0) as stream:
        final = stream.get_final_completion()
    assert "Hello!" in final.choices[0].message.content


# ---- tools and reasoning --------------------------------------------------------------------------------------------

def test_tool_round_trip(tool_client, model):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = tool_client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"location": "Paris"})
    messages += [choice.message.model_dump(exclude_none=True),
                 {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 18, "condition": "sunny"}'}]
    final = tool_client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], temperature=0).choices[0]
    assert final.finish_reason == "stop"
    assert "18" in final.message.content and "sunny" in final.message.content


def test_parallel_tool_calls_stream(tool_client, model):
    messages = [{"role": "user", "content": "What is the weather in Paris and in Rome?"}]
    stream = tool_client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], temperature=0, stream=True)
    calls, finish = {}, None
    for chunk in stream:
        for choice in chunk.choices:
            assert not choice.delta.content, "the markup of calls never shows as content"
            for call in choice.delta.tool_calls or []:
                entry = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                entry["id"] += call.id or ""
                entry["name"] += call.function.name or ""
                entry["arguments"] += call.function.arguments or ""
            finish = choice.finish_reason or finish
    assert finish == "tool_calls"
    assert [(calls[i]["name"], json.loads(calls[i]["arguments"])) for i in (0, 1)] == [
        ("get_weather", {"location": "Paris"}), ("get_weather", {"location": "Rome"})]
    assert calls[0]["id"] != calls[1]["id"]


def test_tool_choice_none_makes_no_call(tool_client, model):
    answer = tool_client.chat.completions.create(model=model, messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[WEATHER],
                                                 tool_choice="none", temperature=0)
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "stop"


def test_auto_tool_choice_without_the_flag_is_refused(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=HELLO, tools=[WEATHER], tool_choice="auto")
    assert "--enable-auto-tool-choice" in str(error.value)


THINK = {"chat_template_kwargs": {"enable_thinking": True}}


def test_reasoning_is_separate(tool_client, model):
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    answer = tool_client.chat.completions.create(model=model, messages=messages, temperature=0, extra_body=THINK)
    message = answer.choices[0].message
    assert "17 + 25 = 42" in message.content and "think>" not in message.content
    assert "42" in message.model_extra["reasoning"] and "think>" not in message.model_extra["reasoning"]
    reasoning, content = "", ""
    for chunk in tool_client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True, extra_body=THINK):
        for choice in chunk.choices:
            delta = choice.delta.model_extra.get("reasoning") or ""
            assert not (delta and content), "no reasoning after content has begun"
            reasoning += delta
            content += choice.delta.content or ""
    assert (reasoning, content) == (message.model_extra["reasoning"], message.content)


def test_no_reasoning_unless_asked(tool_client, model):
    message = tool_client.chat.completions.create(model=model, messages=HELLO, temperature=0).choices[0].message
    assert "Hello!" in message.content
    assert not message.model_extra.get("reasoning")


def test_think_markup_shows_without_a_parser(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, extra_body=THINK)
    assert "<think>" in answer.choices[0].message.content and "</think>" in answer.choices[0].message.content


# ---- errors ---------------------------------------------------------------------------------------------------------

def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert error.value.body["code"] == 404 and error.value.body["type"] == "NotFoundError"
    assert "no-such-model" in error.value.body["message"]


@pytest.mark.parametrize("fields, param", [({"temperature": -1}, "temperature"), ({"top_p": 2}, "top_p"), ({"max_tokens": 0}, "max_tokens")])
def test_bad_values_are_structured_errors(client, model, fields, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=HELLO, **fields)
    body = error.value.body
    assert body["code"] == 400 and body["type"] == "BadRequestError" and param in body["message"]


def test_errors_before_a_stream_are_plain(client, model):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=HELLO, temperature=-1, stream=True)
