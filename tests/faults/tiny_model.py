"""A checkpoint of a model that is quickly worked on, and what an interrupted quantization leaves of it."""
import json
import struct


def tree(folder):
    """What a folder holds: the bytes of each file, None of each folder."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def printable_bytes():
    """GPT-2's stand-ins for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(others)) for b in range(256)]


def make_checkpoint(folder, layers=1, ffn=48):
    """Layers of 32 columns, as torch.save writes them; a byte-level tokenizer."""
    import torch

    folder.mkdir()
    hidden, vocab = 32, 258
    generator = torch.Generator().manual_seed(1)
    weights = {"model.embed_tokens": (vocab, hidden), "model.norm": (hidden,), "lm_head": (vocab, hidden)}
    layer = {"input_layernorm": (hidden,), "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (16, hidden),
             "self_attn.v_proj": (16, hidden), "self_attn.o_proj": (hidden, hidden), "post_attention_layernorm": (hidden,),
             "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    weights.update({f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()})
    torch.save({f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in weights.items()},
               folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": False}))
    pieces = printable_bytes() + ["aa", "th"]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": ["a a", "t h"]}}))


# To this command's output belongs the unfinished work of the fixture below.
RESUMABLE = "quantize {tiny}/two_layers.quire --type q4 --calibrate -f {tiny}/text --threads 2"


def layers_done(unfinished):
    """Of what a file of unfinished work holds (quantize/work_file.cc: Header)."""
    return struct.unpack_from("<q", unfinished, 40)[0] if len(unfinished) > 64 else 0


def make_unfinished_work(quire, shim, folder):
    """two_layers.quire, and in unfinished what RESUMABLE leaves where the disk fails after one layer of two."""
    make_checkpoint(folder / "two_layers", layers=2)
    quire("convert", folder / "two_layers", folder / "two_layers.quire", "--type", "f16")
    left = folder / "m.quire.unfinished"
    for sync in range(1, 20):
        quire.run(*RESUMABLE.format(tiny=folder).split(), folder / "m.quire",
                  env={"LD_PRELOAD": str(shim), "QUIRE_FAULT": f"fsync:{sync}:EIO"})
        if left.exists() and layers_done(left.read_bytes()) == 1:
            left.rename(folder / "unfinished")
            return
    raise AssertionError("no run has stopped after its first layer")
