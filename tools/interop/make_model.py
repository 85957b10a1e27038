#!/usr/bin/env python3
"""Writes a Llama of a few million random weights with a byte-level tokenizer: enough for a real vLLM, nothing to download.

    make_model.py FOLDER          needs torch and transformers, which every installation of vLLM has
"""
import pathlib
import sys
import sysconfig

import tokenizers
import torch
import transformers

VOCABULARY = 8192
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def make_tokenizer():
    """Trained on the standard library's sources, which are there wherever this runs."""
    level = tokenizers.pre_tokenizers.ByteLevel
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = level(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=level.alphabet(), show_progress=False)
    core.train([str(path) for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer):
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=640, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(sys.argv[1])
    make_model(tokenizer).save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
