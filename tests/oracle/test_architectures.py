"""One model in every layout that its kind is found in becomes one and the same .quire file."""
import json
import struct

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

SIZES = dict(vocab_size=96, hidden_size=48, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=256)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
META = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output", "model.layers": "layers",
        "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
GGUF = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.down_proj": "ffn_down",
        "mlp.up_proj": "ffn_up", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def make(family="Llama", tied=False, **changes):
    config = getattr(transformers, family + "Config")(**{**SIZES, "tie_word_embeddings": tied, **changes})
    model = getattr(transformers, family + "ForCausalLM")(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def save_hf(folder, model):
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def rename(name, table):
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def interleave(weight, heads):
    """Rows of each head from rotate-half order to adjacent pairs."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).transpose(1, 2).reshape(weight.shape)


def renamed(model, table, interleaved=True):
    """The state under other names, Q and K in interleaved order."""
    state = {}
    for name, weight in model.state_dict().items():
        if interleaved and ".q_proj." in name:
            weight = interleave(weight, SIZES["num_attention_heads"])
        if interleaved and ".k_proj." in name:
            weight = interleave(weight, SIZES["num_key_value_heads"])
        state[rename(name, table)] = weight.clone()
    return state


def meta_params(**more):
    return {"dim": 48, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2, "vocab_size": -1, "multiple_of": 4, "norm_eps": 1e-6,
            **more}


class Converted:
    """Canonical tensors with their checksums, and the configuration, of a conversion to f32."""

    def __init__(self, quire, source, out, *args):
        quire("convert", source, out, "--type", "f32", "--tokenizer", "none", *args)
        listed = quire.json("inspect", out)
        self.tensors = [(t["name"], t["shape"], t["checksum"]) for t in listed["tensors"]]
        self.config = listed["config"]


@pytest.fixture
def convert(quire, tmp_path):
    count = iter(range(100))
    return lambda source, *args: Converted(quire, source, tmp_path / f"{next(count)}.quire", *args)


def expect_same(ours, reference, *differing):
    assert ours.tensors == reference.tensors
    drop = {"context_tokens", *differing}
    assert {k: v for k, v in ours.config.items() if k not in drop} == {
        k: v for k, v in reference.config.items() if k not in drop}


@pytest.mark.parametrize("tied", [False, True])
def test_hugging_face_layouts(convert, tmp_path, tied):
    model = make(tied=tied)
    reference = convert(save_hf(tmp_path / "hf", model))
    assert len(reference.tensors) == 1 + 2 * 9 + 1 + (not tied)
    state = model.state_dict()

    model.save_pretrained(tmp_path / "st")
    expect_same(convert(tmp_path / "st"), reference)
    expect_same(convert(tmp_path / "st" / "model.safetensors"), reference)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("model-*-of-*.safetensors"))) > 3
    expect_same(convert(tmp_path / "sharded"), reference)

    sharded = tmp_path / "bins"
    sharded.mkdir()
    model.config.save_pretrained(sharded)
    weight_map = {}
    for i, names in enumerate([list(state)[0::2], list(state)[1::2]]):
        torch.save({name: state[name] for name in names}, sharded / f"pytorch_model-{i}.bin")
        weight_map.update({name: f"pytorch_model-{i}.bin" for name in names})
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    expect_same(convert(sharded), reference)

    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    alone = tmp_path / "alone"
    alone.mkdir()
    torch.save({"model": state, "config": config, "step": 7}, alone / "nested.pt")
    expect_same(convert(alone / "nested.pt"), reference)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    saved = {"state_dict": {"module._orig_mod." + k: v for k, v in state.items()}, "optimizer": optimizer.state_dict()}
    trained = {name: tensor.clone() for name, tensor in state.items()}
    torch.save(saved, alone / "training.ckpt")
    ours = convert(alone / "training.ckpt", "--config", tmp_path / "hf" / "config.json")
    torch.save(trained, tmp_path / "hf" / "pytorch_model.bin")
    expect_same(ours, convert(tmp_path / "hf"))


def split(state, shards, embedding_axis):
    """Meta's tensor-parallel shards."""
    parts = [{} for _ in range(shards)]
    for name, tensor in state.items():
        axis = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
        if name == "tok_embeddings.weight":
            axis = embedding_axis
        pieces = tensor.chunk(shards, axis) if tensor.dim() == 2 else [tensor] * shards
        for part, piece in zip(parts, pieces):
            part[name] = piece.clone()
    return parts


@pytest.mark.parametrize("shards,embedding_axis", [(1, 0), (2, 0), (2, 1)])
def test_meta_folders(convert, tmp_path, shards, embedding_axis):
    model = make()
    reference = convert(save_hf(tmp_path / "hf", model))
    folder = tmp_path / "meta"
    folder.mkdir()
    state = {**renamed(model, META), "rope.freqs": torch.ones(4)}
    for i, part in enumerate(split(state, shards, embedding_axis)):
        torch.save(part, folder / f"consolidated.{i:02}.pth")
    (folder / "params.json").write_text(json.dumps(meta_params()))
    expect_same(convert(folder), reference)
    if shards == 1:
        expect_same(convert(folder / "consolidated.00.pth"), reference)


def test_meta_scaled_rope(convert, tmp_path):
    model = make(rope_parameters=LLAMA3)
    reference = convert(save_hf(tmp_path / "hf", model))
    folder = tmp_path / "meta"
    folder.mkdir()
    torch.save(renamed(model, META), folder / "consolidated.00.pth")
    params = meta_params(rope_theta=500000.0, use_scaled_rope=True)
    (folder / "params.json").write_text(json.dumps(params))
    expect_same(convert(folder), reference)


def test_llama2c_dictionary(convert, tmp_path):
    model = make(tied=True)
    reference = convert(save_hf(tmp_path / "hf", model))
    state = renamed(model, META)
    state["output.weight"] = state["tok_embeddings.weight"]
    args = meta_params(vocab_size=96, max_seq_len=256, dropout=0.0)
    torch.save({"model": {"_orig_mod." + k: v for k, v in state.items()}, "model_args": args, "iter_num": 3}, tmp_path / "m.pt")
    expect_same(convert(tmp_path / "m.pt"), reference)


def write_gguf(path, model, arch, interleaved, quantize=lambda name, data: (data, None), extra=None):
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for name, tensor in {**renamed(model, GGUF, interleaved), **(extra or {})}.items():
        if name == "output.weight" and config.tie_word_embeddings:
            continue
        data, qtype = quantize(name, tensor.numpy())
        writer.add_tensor(name, data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [False, True])
def test_gguf_llama(convert, tmp_path, tied):
    model = make(tied=tied)
    reference = convert(save_hf(tmp_path / "hf", model))
    expect_same(convert(write_gguf(tmp_path / "x.gguf", model, "llama", True)), reference)


def test_gguf_rope_factors(convert, tmp_path):
    model = make(rope_parameters=LLAMA3)
    reference = convert(save_hf(tmp_path / "hf", model))
    # Divisors of the frequencies, from transformers' own.
    plain = 1.0 / 500000.0 ** (torch.arange(0, 8, 2) / 8)
    factors = plain / model.model.rotary_emb.inv_freq
    path = write_gguf(tmp_path / "x.gguf", model, "llama", True, extra={"rope_freqs.weight": factors})
    expect_same(convert(path), reference)


@pytest.mark.parametrize("tied", [False, True])
def test_gguf_qwen2(convert, tmp_path, tied):
    model = make("Qwen2", tied=tied)
    reference = convert(save_hf(tmp_path / "hf", model))
    assert "layers.1.bv" in [name for name, _, _ in reference.tensors]
    expect_same(convert(write_gguf(tmp_path / "x.gguf", model, "qwen2", False)), reference)


def test_gguf_llama_with_biases(convert, tmp_path):
    """Biases are in interleaved order too."""
    model = make("Qwen2")
    reference = convert(save_hf(tmp_path / "hf", model))
    expect_same(convert(write_gguf(tmp_path / "x.gguf", model, "llama", True)), reference)


@pytest.mark.parametrize("qtype", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_gguf_types(convert, tmp_path, qtype):
    """The same as its dequantized weights in a state dict."""
    qtype = gguf.GGMLQuantizationType[qtype]
    model = make(hidden_size=96, intermediate_size=64)

    def quantize(name, data):
        return (gguf.quantize(data, qtype), qtype) if data.ndim == 2 else (data, None)

    path = write_gguf(tmp_path / "x.gguf", model, "llama", True, quantize)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                data = gguf.dequantize(gguf.quantize(parameter.numpy(), qtype), qtype)
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(data)))
    expect_same(convert(path), convert(save_hf(tmp_path / "hf", model)))


def refusal(quire, source, out):
    done = quire.run("convert", source, out, "--tokenizer", "none")
    assert done.returncode == 1 and not out.exists()
    message = done.stderr.decode()
    assert message.count("\n") == 1, message
    return message


@pytest.mark.parametrize("family", ["GPTJ", "Gemma2", "Qwen3", "Mixtral", "Phi3", "GPTNeoX", "Olmo2", "Cohere"])
def test_other_architectures_are_refused_by_name(quire, tmp_path, family):
    config = getattr(transformers, family + "Config")(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = getattr(transformers, family + "ForCausalLM")(config)
    message = refusal(quire, save_hf(tmp_path / "hf", model), tmp_path / "out.quire")
    assert config.model_type in message and "supported: llama" in message
    # The container is read all the same.
    assert len(quire.json("inspect", tmp_path / "hf")["tensors"]) == len(model.state_dict())


@pytest.mark.parametrize("changes", [
    dict(attention_bias=True), dict(mlp_bias=True), dict(hidden_act="gelu"),
    dict(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}),
    dict(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}),
], ids=lambda c: "-".join(map(str, list(c.items())[0]))[:40])  # fmt: skip
def test_settings_that_are_not_computed_are_refused(quire, tmp_path, changes):
    message = refusal(quire, save_hf(tmp_path / "hf", make(**changes)), tmp_path / "out.quire")
    assert "not supported" in message


def test_gguf_of_another_architecture_and_a_cut_file(quire, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", make(), "gemma3", False)
    assert '"gemma3"' in refusal(quire, path, tmp_path / "out.quire")
    path = write_gguf(tmp_path / "y.gguf", make(), "llama", True)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert "the file ends at" in refusal(quire, path, tmp_path / "out.quire")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0))
    assert "number of tensors" in refusal(quire, path, tmp_path / "out.quire")
