#!/usr/bin/env python3
"""Trains the embedded default model from generated text and writes it as a Hugging Face folder. See README.md."""

import argparse
import itertools
import json
import pathlib
import time

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import corpus
from model import CONFIG, Model, export, load

HERE = pathlib.Path(__file__).resolve().parent
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<think>", "</think>"]  # text that must survive skip_special_tokens


def make_tokenizer(seed):
    """Byte-level BPE with Qwen2's split (every digit is a token); trained on a sample of the corpus."""
    r = corpus.Rng(seed)
    texts = ["".join(text for text, _ in corpus.render(corpus.conversation(r))) for _ in range(6000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=CONFIG["vocab_size"] - len(SPECIAL) - len(ADDED), min_frequency=2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    for tag in SPECIAL + ADDED:
        texts = [text.replace(tag, " ") for text in texts]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in SPECIAL])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ADDED])
    assert tokenizer.get_vocab_size() <= CONFIG["vocab_size"]
    return tokenizer


def encode(tokenizer, talks, prompt_weight):
    """Token ids and per-token loss weights of each conversation: the model's own words count fully, the rest a little."""
    segments = [corpus.render(talk) for talk in talks]
    flat = tokenizer.encode_batch([text for parts in segments for text, _ in parts], add_special_tokens=False)
    flat = iter(flat)
    rows = []
    for parts in segments:
        ids, weights = [], []
        for (_, learned), encoding in zip(parts, flat):
            ids += encoding.ids
            weights += [{True: 1.0, False: prompt_weight, None: 0.0}[learned]] * len(encoding.ids)
        rows.append((ids, weights))
    return rows


def batches(tokenizer, seed, tokens, prompt_weight):
    """Endless padded batches of about `tokens` tokens; rows of similar length share a batch."""
    r = corpus.Rng(seed)
    pad = tokenizer.token_to_id("<|endoftext|>")
    while True:
        rows = encode(tokenizer, [corpus.conversation(r) for _ in range(1200)], prompt_weight)
        rows = sorted((row for row in rows if len(row[0]) <= 1536), key=lambda row: len(row[0]) * r.uniform(0.95, 1.05))
        groups, group = [], []
        for row in rows:
            if group and max(len(row[0]), max(len(x[0]) for x in group)) * (len(group) + 1) > tokens:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        r.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), width), pad)
            weights = torch.zeros(len(group), width)
            for i, (row, weight) in enumerate(group):
                ids[i, :len(row)] = torch.tensor(row)
                weights[i, :len(row)] = torch.tensor(weight)
            yield ids, weights


class Muon:
    """Momentum orthogonalised by Newton-Schulz iterations: about twice as sample-efficient as Adam on these matrices.
    Matrices of one shape are orthogonalised together."""

    def __init__(self, parameters, momentum=0.95):
        self.momentum = momentum
        self.groups = [list(group) for _, group in itertools.groupby(sorted(parameters, key=lambda p: tuple(p.shape)), key=lambda p: p.shape)]
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, rate):
        for group, buffer in zip(self.groups, self.buffers):
            gradient = torch.stack([p.grad for p in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            x = gradient.lerp(buffer, self.momentum)
            tall = x.shape[1] > x.shape[2]
            x = x.mT if tall else x
            x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
            for _ in range(5):
                square = x @ x.mT
                x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
            x = x.mT if tall else x
            scale = max(1.0, x.shape[1] / x.shape[2]) ** 0.5
            for p, update in zip(group, x.float()):
                p.mul_(1 - rate * 0.05).sub_(update, alpha=rate * scale)


@torch.no_grad()
def teacher_forced(model, rows, pad):
    """Share of conversations whose every learned token is the most likely one: an upper bound of greedy accuracy."""
    right = 0
    for start in range(0, len(rows), 32):
        part = rows[start:start + 32]
        width = max(len(ids) for ids, _ in part)
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in part])
        with torch.autocast("cpu", torch.bfloat16):
            best = model.logits(model.hidden(ids)).argmax(-1)
        for i, (row, weights) in enumerate(part):
            learned = [t for t in range(1, len(row)) if weights[t] == 1.0]
            right += all(best[i, t - 1] == row[t] for t in learned)
    return right / len(rows)


def validation(tokenizer):
    """Groups of single exchanges that training does not contain (sums) or contains only by chance (the rest)."""
    r = corpus.Rng(99)
    sums = [(a, b, op) for a in range(100) for b in range(100) for op in "+-" if corpus.held_out(a, b, op)]
    r.shuffle(sums)
    groups = {"sums": [corpus.say(f"What is {a} {op} {b}?", f"{a} {op} {b} = {a + b if op == '+' else a - b}") for a, b, op in sums[:160]],
              "think": [corpus.say(f"{a} {op} {b}", f"{a} {op} {b} = {a + b if op == '+' else a - b}", corpus.working(a, b, op))
                        for a, b, op in sums[160:224]]}
    for topic in (corpus.capital, corpus.tasks_json.exchange, corpus.unknown, corpus.small_talk, corpus.repeat):
        groups[topic.__name__] = [topic(r) for _ in range(96)]
    for group in list(groups.values())[2:]:
        for turns in group:
            turns[-1].pop("reasoning", None)
    talks = {name: [{"system": None, "tools": [], "messages": turns} for turns in group] for name, group in groups.items()}
    talks["tools"] = [corpus.tasks_tools.conversation(r, [corpus.arithmetic, corpus.capital, corpus.small_talk], corpus.SYSTEMS) for _ in range(96)]
    return {name: encode(tokenizer, group, 0.0) for name, group in talks.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=HERE.parents[1] / "Engine/models/default", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=1960)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init", type=pathlib.Path, help="go on from this exported folder")
    parser.add_argument("--evaluate-every", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.01)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    tokenizer = Tokenizer.from_file(str(args.init / "tokenizer.json")) if args.init else make_tokenizer(args.seed)
    pad = tokenizer.token_to_id("<|endoftext|>")
    checks = validation(tokenizer)
    model = load(args.init) if args.init else Model()
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("layers.")]
    rest = [p for name, p in model.named_parameters() if not (p.dim() == 2 and name.startswith("layers."))]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, vocabulary {tokenizer.get_vocab_size()}", flush=True)

    started, seen, average, best = time.time(), 0, None, -1.0
    template = (HERE / "chat_template.jinja").read_text()
    feed = batches(tokenizer, args.seed + 1, args.tokens, 0.1)
    for step in range(1, args.steps + 1):
        ids, weights = next(feed)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.hidden(ids[:, :-1])
            wanted = weights[:, 1:] > 0
            logits = model.logits(hidden[wanted])
        loss = F.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
        weight = weights[:, 1:][wanted]
        own = (loss * (weight == 1)).sum().item() / max(1, (weight == 1).sum().item())
        ((loss * weight).sum() / weight.sum()).backward()
        # Warm up, hold, then fall linearly to zero over the last 45 %.
        factor = min(1.0, step / 60, max(0.0, (args.steps - step) / (0.45 * args.steps)))
        for group in adam.param_groups:
            group["lr"] = 0.004 * factor
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step(args.rate * factor)
        adam.step()
        model.zero_grad(set_to_none=True)
        seen += ids.numel()
        average = own if average is None else 0.97 * average + 0.03 * own
        if step % 25 == 0:
            print(f"step {step} loss {average:.4f} tokens {seen} seconds {time.time() - started:.0f}", flush=True)
        if step % args.evaluate_every == 0 or step == args.steps:
            scores = {name: round(teacher_forced(model, rows, pad), 3) for name, rows in checks.items()}
            mean = sum(scores.values()) / len(scores)
            print(f"step {step} {json.dumps(scores)} mean {mean:.3f}", flush=True)
            if mean >= best:
                best = mean
                export(model, args.out, tokenizer, template)
    print(f"done in {time.time() - started:.0f} s, best mean {best:.3f}")


if __name__ == "__main__":
    main()
