"""A 16-bit GGUF file from a Hugging Face folder of PyTorch shards: llama.cpp's side of a comparison, one tensor in memory at a time."""
import json
from pathlib import Path

import gguf
import numpy as np
import torch

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem, part = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{part}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.{part}"


def interleaved(rows, n_heads):
    """GGUF's llama pairs elements 2i and 2i + 1 of a head, Hugging Face i and i + head_dim / 2."""
    return rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(folder, path):
    """The model without a tokenizer: prompts are token ids. Matrices stay f16 or bf16, bit for bit."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    shards = [torch.load(shard, mmap=True, weights_only=True) for shard in sorted(folder.glob("pytorch_model*.bin"))]
    tied = config.get("tie_word_embeddings", False)
    tensors = {gguf_name(name): tensor for shard in shards for name, tensor in shard.items() if not (tied and name == "lm_head.weight")}

    qwen2 = config["model_type"] == "qwen2"
    writer = gguf.GGUFWriter(path, "qwen2" if qwen2 else "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    half = all(tensor.dtype == torch.float16 for tensor in tensors.values() if tensor.dim() == 2)
    dtype, code = (torch.float16, gguf.GGMLQuantizationType.F16) if half else (torch.bfloat16, gguf.GGMLQuantizationType.BF16)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.MOSTLY_BF16)
    for name, tensor in tensors.items():
        if tensor.dim() == 1:
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), 4 * tensor.numel())
        else:
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.uint16), 2 * tensor.numel(), raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        if tensor.dim() == 1:
            values = tensor.float().numpy()
        else:
            values = tensor.to(dtype).contiguous().view(torch.uint16).numpy()
        if ".attn_q." in name and not qwen2:
            values = interleaved(values, heads)
        elif ".attn_k." in name and not qwen2:
            values = interleaved(values, kv_heads)
        writer.write_tensor_data(np.ascontiguousarray(values))
    writer.close()
