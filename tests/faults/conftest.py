"""A tiny model and the shim that makes system calls fail."""
import json
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent


def printable_bytes():
    """GPT-2's stand-ins for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(others)) for b in range(256)]


def make_checkpoint(folder):
    """One layer of 32 columns, as torch.save writes it; a byte-level tokenizer."""
    import torch

    folder.mkdir()
    hidden, ffn, vocab = 32, 48, 258
    generator = torch.Generator().manual_seed(1)
    weights = {"model.embed_tokens": (vocab, hidden), "model.norm": (hidden,), "lm_head": (vocab, hidden)}
    layer = {"input_layernorm": (hidden,), "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (16, hidden),
             "self_attn.v_proj": (16, hidden), "self_attn.o_proj": (hidden, hidden), "post_attention_layernorm": (hidden,),
             "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    weights.update({f"model.layers.0.{name}": shape for name, shape in layer.items()})
    torch.save({f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in weights.items()},
               folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": False}))
    pieces = printable_bytes() + ["aa", "th"]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": ["a a", "t h"]}}))


@pytest.fixture(scope="session")
def tiny(quire, tmp_path_factory):
    """A folder with checkpoint/, f16.quire and q4.quire of one tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder / "checkpoint")
    quire("convert", folder / "checkpoint", folder / "f16.quire", "--type", "f16")
    quire("convert", folder / "checkpoint", folder / "q4.quire")
    return folder


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-o", path, HERE / "fault_shim.c"],
                   check=True)
    return path
