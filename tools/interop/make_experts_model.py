#!/usr/bin/env python3
"""Writes a mixture-of-experts model of random weights beside the tokenizer of another model.

    make_experts_model.py FOLDER WITH-TOKENIZER          needs torch and transformers
"""
import sys

import torch
import transformers


def main():
    folder, source = sys.argv[1:]
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    config = transformers.Qwen2MoeConfig(
        vocab_size=transformers.AutoConfig.from_pretrained(source).vocab_size, hidden_size=256, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=64, moe_intermediate_size=64,
        shared_expert_intermediate_size=64, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[],
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(0)
    transformers.Qwen2MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
