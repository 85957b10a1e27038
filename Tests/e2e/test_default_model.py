"""The embedded model answers what it was taught, through supervisor, frontend and engine, streamed and not."""

import collections
import concurrent.futures
import json
import pathlib

import pytest

from answers import problem
from http_client import collect_chat, plain_chat

DATA = json.loads((pathlib.Path(__file__).parent / "data/default_model_questions.json").read_text())
GROUPS = collections.defaultdict(list)
for question in DATA["questions"]:
    GROUPS[question["group"]].append(question)


def ask(server, question):
    """Asks plainly and streamed; returns what is wrong with the answer, and the two messages."""
    body = {key: question[key] for key in ("messages", "tools", "chat_template_kwargs") if key in question}
    body |= {"temperature": 0, "max_tokens": 200}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    plain, finish = plain_chat(answer.json())
    stream = server.stream("/v1/chat/completions", body)
    assert stream.status == 200
    streamed, stream_finish = collect_chat(stream.chunks())
    stream.close()
    calls = [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in plain["tool_calls"]]
    wrong = problem(question["expect"], plain["reasoning"], plain["content"].strip(), calls)
    expected_finish = "tool_calls" if question["expect"].get("tool_calls") else "stop"
    if not wrong and finish != expected_finish:
        wrong = f"finish_reason {finish!r}, expected {expected_finish!r}"
    return wrong, (plain, finish), (streamed, stream_finish)


@pytest.mark.parametrize("group", GROUPS)
def test_answers(tool_server, group):
    questions = GROUPS[group]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda question: ask(tool_server, question), questions))
    different = [f"{q['id']}: {plain} / {streamed}" for q, (_, plain, streamed) in zip(questions, results) if plain != streamed]
    assert not different, "plain and streamed answers differ:\n" + "\n".join(different)
    wrong = [f"{q['id']}: {why}: {plain[0]}" for q, (why, plain, _) in zip(questions, results) if why]
    need = DATA["groups"].get(group, {}).get("min_share", 1.0)
    assert len(questions) - len(wrong) >= need * len(questions), "\n".join(wrong)


def test_answers_do_not_depend_on_other_requests(tool_server):
    """Alone and among 32 concurrent requests the greedy answer is the same."""
    body = {"messages": [{"role": "user", "content": "Count from 1 to 30."}], "temperature": 0, "max_tokens": 200}
    alone = plain_chat(tool_server.post("/v1/chat/completions", body).json())
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: plain_chat(tool_server.post("/v1/chat/completions", body).json()), range(32)))
    assert all(answer == alone for answer in answers)
