#!/usr/bin/env python3
"""Writes the seeds of the corpus folder: models of one layer as Hugging Face and Meta lay them out.

  tests/fuzz/make_folder_seeds.py        (needs torch, safetensors)
"""
import io
import json
import pathlib
import re

import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
NAMES = re.findall(r'"([\w.]+\.\w+)"', re.search(r"kFileNames\[\] = \{(.*?)\};", (HERE / "folder_input.h").read_text(), re.S)[1])
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 6, "head_dim": 4,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "rms_norm_eps": 1e-5,
          "tie_word_embeddings": True, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": [1]}
TOKENIZER = {"model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, "merges": ["a b"]},
             "added_tokens": [{"id": 0, "content": "<s>", "special": True}, {"id": 1, "content": "</s>", "special": True}],
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "decoder": {"type": "ByteLevel"}}
BESIDE = {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>",
                                    "eos_token": {"content": "</s>"}, "added_tokens_decoder": {"5": {"content": "<x>"}},
                                    "chat_template": [{"name": "default", "template": "{{ messages }}"}]},
          "special_tokens_map.json": {"bos_token": "<s>"}, "generation_config.json": {"eos_token_id": [1, 4]}}


def state(rows=8, cols=8, ffn=6):
    torch.manual_seed(1)
    layer = {"self_attn.q_proj": (rows, cols), "self_attn.k_proj": (rows // 2, cols), "self_attn.v_proj": (rows // 2, cols),
             "self_attn.o_proj": (cols, rows), "mlp.gate_proj": (ffn, cols), "mlp.up_proj": (ffn, cols), "mlp.down_proj": (cols, ffn)}
    return {"model.embed_tokens.weight": torch.randn(5, cols), "model.norm.weight": torch.ones(cols),
            "model.layers.0.input_layernorm.weight": torch.ones(cols),
            "model.layers.0.post_attention_layernorm.weight": torch.ones(cols),
            **{f"model.layers.0.{name}.weight": torch.randn(shape) for name, shape in layer.items()}}


def saved(tensors):
    out = io.BytesIO()
    torch.save(tensors, out)
    return out.getvalue()


def halves(tensors):
    names = sorted(tensors)
    return [{n: tensors[n] for n in part} for part in (names[: len(names) // 2], names[len(names) // 2 :])]


def meta(rank):
    """One of two shards, each with half of the rows or columns."""
    shapes = {"tok_embeddings.weight": (5, 4), "norm.weight": (8,), "output.weight": (3, 8), "layers.0.attention_norm.weight": (8,),
              "layers.0.ffn_norm.weight": (8,), "layers.0.attention.wq.weight": (4, 8), "layers.0.attention.wk.weight": (4, 8),
              "layers.0.attention.wv.weight": (4, 8), "layers.0.attention.wo.weight": (8, 4),
              "layers.0.feed_forward.w1.weight": (3, 8), "layers.0.feed_forward.w2.weight": (8, 3),
              "layers.0.feed_forward.w3.weight": (3, 8)}
    return saved({name: torch.full(shape, float(rank)).half() for name, shape in shapes.items()})


def gptq():
    tensors = {}
    for name, weight in state(32, 32, 32).items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight
            continue
        rows, cols = weight.shape
        layer = name[: -len(".weight")]
        tensors[layer + ".qweight"] = torch.full((cols // 8, rows), 0x12345678, dtype=torch.int32)
        tensors[layer + ".scales"] = torch.ones(1, rows, dtype=torch.float16)
        tensors[layer + ".qzeros"] = torch.full((1, rows // 8), 0x77777777, dtype=torch.int32)
    return {"config.json": {**CONFIG, "hidden_size": 32, "intermediate_size": 32, "head_dim": 16,
                            "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}},
            "model.safetensors": safetensors.torch.save(tensors)}


def index(parts, names):
    return {"metadata": {}, "weight_map": {tensor: name for part, name in zip(parts, names) for tensor in part}}


def main():
    parts = halves(state())
    params = {"dim": 8, "n_layers": 1, "n_heads": 2, "vocab_size": 5, "norm_eps": 1e-5, "multiple_of": 2}
    folders = {
        "one": {"config.json": CONFIG, "model.safetensors": safetensors.torch.save(state()), "tokenizer.json": TOKENIZER, **BESIDE},
        "shards": {"config.json": CONFIG, "model.safetensors.index.json": index(parts, ("a.safetensors", "b.safetensors")),
                   "a.safetensors": safetensors.torch.save(parts[0]), "b.safetensors": safetensors.torch.save(parts[1]),
                   "chat_template.jinja": b"{{ messages }}"},
        "bins": {"config.json": CONFIG, "pytorch_model.bin.index.json": index(parts, ("a.bin", "b.bin")),
                 "a.bin": saved(parts[0]), "b.bin": saved(parts[1])},
        "meta": {"params.json": params, "consolidated.00.pth": meta(0), "consolidated.01.pth": meta(1)},
        "gptq": gptq(),
        "bare": {"tokenizer.json": TOKENIZER, "quantize_config.json": {"bits": 4}, "pytorch_model.bin": saved(state())},
    }  # fmt: skip
    (HERE / "corpus" / "folder").mkdir(exist_ok=True)
    for folder, files in folders.items():
        out = b""
        for name, content in files.items():
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            out += bytes([NAMES.index(name)]) + len(content).to_bytes(2, "little") + content
        (HERE / "corpus" / "folder" / folder).write_bytes(out)


if __name__ == "__main__":
    main()
