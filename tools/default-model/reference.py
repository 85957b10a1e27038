#!/usr/bin/env python3
"""Writes what transformers computes with the default model, for the engine's tests: greedy tokens and how sure they are.

Per prompt and dtype (the stored weights are bf16; "float32" computes with them in fp32): the 32 greedy tokens (not
stopped at the end of the answer), per step the distance between the two largest logits, and the eight largest logits
after the prompt. Where the distance is small, another order of additions may choose the other token.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "Engine/models/default"
OUT = ROOT / "Engine/tests/data/default_model/reference.json"
STEPS = 32
CHATS = [
    ("hello", "Hello", {}), ("identity", "Who are you?", {}), ("sum", "What is 17 + 25?", {}), ("capital", "What is the capital of Japan?", {}),
    ("json", "Give me a JSON object for a person named Alice, age 30.", {}), ("count", "Count from 1 to 30.", {}),
    ("think", "What is 64 - 38?", {"enable_thinking": True}),
]


def weather_prompt(tokenizer):
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Get the current weather", "parameters": {
        "type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}}}
    return tokenizer.apply_chat_template([{"role": "user", "content": "What is the weather in Paris?"}], tools=[tool],
                                         add_generation_prompt=True, return_dict=True)["input_ids"]


@torch.no_grad()
def greedy(model, prompt):
    ids, chosen, margins, first = list(prompt), [], [], None
    for _ in range(STEPS):
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        top = logits.topk(8)
        first = first or [[int(i), round(float(v), 5)] for v, i in zip(*top)]
        margins.append(round(float(top.values[0] - top.values[1]), 5))
        chosen.append(int(top.indices[0]))
        ids.append(chosen[-1])
    return {"tokens": chosen, "margins": margins, "first_top_logits": first}


def main():
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    prompts = [(name, tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True, **kwargs)["input_ids"])
               for name, text, kwargs in CHATS] + [("tool", weather_prompt(tokenizer))]
    models = {dtype: AutoModelForCausalLM.from_pretrained(MODEL, dtype=getattr(torch, dtype)).eval() for dtype in ("float32", "bfloat16")}
    cases = [{"name": name, "prompt": prompt} | {dtype: greedy(model, prompt) for dtype, model in models.items()} for name, prompt in prompts]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text('{"model": "Engine/models/default", "cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]}\n")
    for case in cases:
        print(f"{case['name']}: {tokenizer.decode(case['float32']['tokens'])!r}, smallest margin {min(case['float32']['margins'])}")


if __name__ == "__main__":
    main()
