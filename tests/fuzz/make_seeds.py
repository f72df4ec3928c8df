#!/usr/bin/env python3
"""Writes the seeds of the corpora gguf, config, quantized and side_files: small valid files, from which fuzzers start.

  tests/fuzz/make_seeds.py        (needs numpy, gguf)
"""
import json
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

CORPUS = pathlib.Path(__file__).parent / "corpus"


def gguf_model(name, arch, biases=False, qtype=None, tied=True, rope_factors=False):
    rng = np.random.default_rng(1)
    # Blocks are of 32.
    hidden, ffn, vocab, heads, kv_heads, head = (32, 32, 6, 4, 2, 8) if qtype is not None else (8, 6, 6, 2, 1, 4)
    writer = gguf.GGUFWriter(CORPUS / "gguf" / f"{name}.gguf", arch)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e7)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<s>", "</s>", "a", "b", "c", "ab"])
    writer.add_token_types([3, 3, 1, 1, 1, 1])
    writer.add_token_scores([0.0] * vocab)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages }}")
    shapes = {"token_embd": (vocab, hidden), "output_norm": (hidden,), "blk.0.attn_norm": (hidden,),
              "blk.0.ffn_norm": (hidden,), "blk.0.attn_q": (heads * head, hidden),
              "blk.0.attn_k": (kv_heads * head, hidden), "blk.0.attn_v": (kv_heads * head, hidden),
              "blk.0.attn_output": (hidden, heads * head), "blk.0.ffn_gate": (ffn, hidden),
              "blk.0.ffn_up": (ffn, hidden), "blk.0.ffn_down": (hidden, ffn)}
    if not tied:
        shapes["output"] = (vocab, hidden)
    for tensor, shape in shapes.items():
        data = rng.standard_normal(shape).astype(np.float32)
        if qtype is not None and len(shape) == 2:
            writer.add_tensor(tensor + ".weight", gguf.quantize(data, qtype), raw_dtype=qtype)
        else:
            writer.add_tensor(tensor + ".weight", data)
    if biases:
        for part, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
            writer.add_tensor(f"blk.0.attn_{part}.bias", rng.standard_normal(rows).astype(np.float32))
    if rope_factors:
        writer.add_tensor("rope_freqs.weight", np.array([1, 8], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_types():
    writer = gguf.GGUFWriter(CORPUS / "gguf" / "types.gguf", "other")
    writer.add_custom_alignment(64)
    for kind, value in {"uint8": 1, "int8": -1, "uint16": 2, "int16": -2, "uint32": 3, "int32": -3, "uint64": 4,
                        "int64": -4, "float32": 0.5, "float64": 0.1, "bool": True, "string": "text"}.items():
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_array("x.array", [1, 2, 3])
    for i, q in enumerate((Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.Q4_0, Q.Q5_1, Q.IQ4_XS)):
        data = np.random.default_rng(i).integers(0, 256, (1, gguf.GGML_QUANT_SIZES[q][1]), dtype=np.uint8)
        writer.add_tensor(q.name, data, raw_dtype=q)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def configs():
    hf = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
          "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512, "head_dim": 8,
          "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "max_position_embeddings": 512,
          "rope_theta": 1e4, "attention_bias": False, "mlp_bias": False, "sliding_window": None}
    llama3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}
    seeds = {
        "llama": hf,
        "linear": {**hf, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "llama3": {**hf, "rope_parameters": llama3},
        "mistral": {**hf, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096},
        "qwen2": {**hf, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": True,
                  "max_window_layers": 5, "layer_types": ["full_attention"] * 5},
        "quantized": {**hf, "quantization_config": {"quant_method": "gptq"}},
        "meta": {"dim": 64, "n_layers": 5, "n_heads": 8, "n_kv_heads": 4, "vocab_size": -1, "multiple_of": 4,
                 "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": True},
    }
    for name, value in seeds.items():
        (CORPUS / "config" / f"{name}.json").write_text(json.dumps(value))


def quantized():
    """What quantized.cc makes layers of, and a configuration of each method."""
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    methods = {
        "compressed": {"quant_method": "compressed-tensors", "format": "pack-quantized",
                       "config_groups": {"g": {"weights": weights}}, "sparsity_config": {"format": "dense"}},
        "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "checkpoint_format": "gptq"},
        "awq": {"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": 32, "zero_point": True},
    }
    symmetric, ordered, any_order, odd = 8, 3, 6, 16
    for packing, (name, settings) in enumerate(methods.items()):
        config = json.dumps({"quantization_config": settings}).encode()
        for flags in (symmetric, ordered, any_order, odd):
            head = [packing, 1, 0, 1, flags, flags % 3, 4 if flags == symmetric else 7] + [0] * 9
            (CORPUS / "quantized" / f"{name}{flags}").write_bytes(bytes(head) + config)


def side_files():
    """What side_files.cc makes calibrations, unfinished work and logits of."""
    right = 6  # both checksums
    for kind, name in enumerate(("calibration", "work", "logits")):
        for moments in (0, 1):
            head = [kind, right | moments, 1, 7, 3, 2, 1, 0] + [0] * 6
            (CORPUS / "side_files" / f"{name}{moments}").write_bytes(bytes(head) + b"\x00\x00\x80?")


for folder in ("gguf", "config", "quantized", "side_files"):
    (CORPUS / folder).mkdir(parents=True, exist_ok=True)
gguf_model("llama", "llama", rope_factors=True)
gguf_model("llama_q4_0", "llama", qtype=Q.Q4_0, tied=False)
gguf_model("qwen2_q8_0", "qwen2", biases=True, qtype=Q.Q8_0)
gguf_types()
configs()
quantized()
side_files()
