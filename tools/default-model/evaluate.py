#!/usr/bin/env python3
"""Asks the exported model every question of Tests/e2e/data/default_model_questions.json through transformers, greedily."""

import argparse
import collections
import json
import pathlib
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/e2e"))

from answers import problem  # noqa: E402


def parse(text):
    """Splits raw output into (reasoning, content, tool calls), as the qwen3 and hermes parsers of vLLM would."""
    reasoning = None
    if "</think>" in text:
        reasoning, text = text.split("</think>", 1)
        reasoning = reasoning.replace("<think>", "").strip()
    calls = [json.loads(body) for body in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.S)]
    return reasoning, text.split("<tool_call>")[0].strip(), calls


def with_parsed_arguments(messages):
    """vLLM hands tool call arguments to the template as objects."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=ROOT / "Engine/models/default", type=pathlib.Path)
    parser.add_argument("--questions", default=ROOT / "Tests/e2e/data/default_model_questions.json", type=pathlib.Path)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = json.loads(args.questions.read_text())
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    right, total = collections.Counter(), collections.Counter()
    for question in data["questions"]:
        ids = tokenizer.apply_chat_template(with_parsed_arguments(question["messages"]), tools=question.get("tools"), return_tensors="pt",
                                            add_generation_prompt=True, return_dict=True, **question.get("chat_template_kwargs", {}))["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=200, do_sample=False)[0, ids.shape[1]:]
        text = tokenizer.decode(out, skip_special_tokens=True)
        try:
            wrong = problem(question["expect"], *parse(text))
        except ValueError as error:
            wrong = f"unreadable tool call: {error}"
        total[question["group"]] += 1
        right[question["group"]] += wrong is None
        if wrong or args.verbose:
            print(f"{question['id']}: {question['messages'][-1]['content']!r} -> {text!r}" + (f"  WRONG: {wrong}" if wrong else ""))
    failed = False
    for group in total:
        need = data["groups"].get(group, {}).get("min_share", 1.0)
        good = right[group] >= need * total[group]
        failed |= not good
        print(f"{group}: {right[group]}/{total[group]}" + ("" if good else f"  below {need:.0%}"))
    print(f"{sum(right.values())} of {sum(total.values())} right")
    sys.exit(failed)


if __name__ == "__main__":
    main()
