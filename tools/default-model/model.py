"""A Qwen3 decoder (tied embeddings, QK-norm, GQA) just large enough to train here, and its export to Hugging Face files."""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 2048, "hidden_size": 192,
    "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
    "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True, "use_sliding_window": False,
    "initializer_range": 0.02, "use_cache": True, "torch_dtype": "bfloat16",
}


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, CONFIG["rms_norm_eps"])


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dim, h = c["head_dim"], c["hidden_size"]
        q, kv = c["num_attention_heads"] * self.dim, c["num_key_value_heads"] * self.dim
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(h), RMSNorm(h)
        self.self_attn = nn.ModuleDict({
            "q_proj": nn.Linear(h, q, bias=False), "k_proj": nn.Linear(h, kv, bias=False), "v_proj": nn.Linear(h, kv, bias=False),
            "o_proj": nn.Linear(q, h, bias=False), "q_norm": RMSNorm(self.dim), "k_norm": RMSNorm(self.dim)})
        self.mlp = nn.ModuleDict({
            "gate_proj": nn.Linear(h, c["intermediate_size"], bias=False), "up_proj": nn.Linear(h, c["intermediate_size"], bias=False),
            "down_proj": nn.Linear(c["intermediate_size"], h, bias=False)})

    def forward(self, x, cos, sin):
        a, (b, t, _) = self.self_attn, x.shape
        y = self.input_layernorm(x)
        # Under autocast only the projections run in bf16: PyTorch's CPU attention is slower in bf16 than in fp32.
        q, k, v = (a[name](y).float().view(b, t, -1, self.dim).transpose(1, 2) for name in ("q_proj", "k_proj", "v_proj"))
        q, k = rotate(a["q_norm"](q), cos, sin), rotate(a["k_norm"](k), cos, sin)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + a["o_proj"](y.transpose(1, 2).reshape(b, t, -1))
        y, m = self.post_attention_layernorm(x), self.mlp
        return x + m["down_proj"](F.silu(m["gate_proj"](y)) * m["up_proj"](y))


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Model(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"])
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter.data /= (2 * c["num_hidden_layers"]) ** 0.5

    def hidden(self, ids):
        """Final hidden states [batch, length, hidden] of right-padded rows: causal attention never sees the padding."""
        half = self.c["head_dim"] // 2
        frequency = self.c["rope_theta"] ** (-torch.arange(half) / half)
        angle = torch.arange(ids.shape[1])[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed_tokens.weight.T


def load(folder):
    """A model with the weights of an exported folder, to train on."""
    model = Model()
    weights = load_file(pathlib.Path(folder) / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): value.float() for name, value in weights.items()})
    return model


def export(model, folder, tokenizer, template):
    """Writes the folder that `AutoModelForCausalLM.from_pretrained` and vLLM engines load."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    end, stop = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    weights = {"model." + name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    def write(name, value):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    write("config.json", model.c | {"bos_token_id": end, "eos_token_id": stop, "pad_token_id": end})
    write("generation_config.json", {"bos_token_id": end, "eos_token_id": [stop, end], "pad_token_id": end, "do_sample": False})
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "add_bos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": 4096,
        "added_tokens_decoder": {str(i): {"content": t.content, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": t.special}
                                 for i, t in sorted(tokenizer.get_added_tokens_decoder().items())}})
    (folder / "chat_template.jinja").write_text(template)
