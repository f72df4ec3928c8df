"""Checkpoints whose weights are 4-bit codes already: compressed-tensors, GPTQ and AWQ, written here in the layouts of their
tools, carried over bit for bit or refused with the reason. The oracle is the formula by which each tool dequantizes."""
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from test_forward import convert, make, reference_logits, some_ids, tool_logits, worst

LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
           "mlp.down_proj"]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
SIZES = dict(hidden_size=128, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)


def pack(codes, dim, order=range(8)):
    """int32 words of eight 4-bit codes along a dimension."""
    codes = codes.movedim(dim, -1).long()
    words = sum(codes[..., place::8] << 4 * bits for bits, place in enumerate(order))
    return torch.where(words >= 2**31, words - 2**32, words).int().movedim(-1, dim).contiguous()


def quantize(weight, group, symmetric, scale_dtype, seed):
    """Codes [out, in], scales and zero points [out, groups]: any will do, as long as they differ everywhere."""
    rows, cols = weight.shape
    group = cols if group == -1 else group
    parts = weight.float().reshape(rows, cols // group, group)
    if symmetric:
        scale = (parts.abs().amax(-1) / 7).clamp(min=1e-4).to(scale_dtype)
        zero = torch.full_like(scale, 8).int()
    else:
        scale = ((parts.amax(-1) - parts.amin(-1)) / 15).clamp(min=1e-4).to(scale_dtype)
        zero = torch.round(-parts.amin(-1) / scale.float()).clamp(1, 15).int()
    codes = (torch.round(parts / scale.float()[..., None]) + zero[..., None]).clamp(0, 15).int()
    return codes.reshape(rows, cols), scale, zero


def dequantize(codes, scale, zero, columns):
    """columns: the group of each column."""
    return (codes - zero[:, columns]).float() * scale.float()[:, columns]


class Checkpoint:
    """A folder of Hugging Face's with packed layers, and what its weights are."""

    def __init__(self, tmp_path, method, group=32, symmetric=True, scale_dtype=torch.float16, order=None, container="safetensors",
                 name="llama", config=None):
        source, self.model = make(tmp_path, name, **SIZES)
        self.folder = tmp_path / "packed"
        shutil.copytree(source, self.folder)
        (self.folder / "pytorch_model.bin").unlink()
        state, self.weights, self.parts = dict(self.model.state_dict()), {}, {}
        if self.model.config.tie_word_embeddings:
            del state["lm_head.weight"]
        for layer in [f"model.layers.{i}.{name}" for i in range(self.model.config.num_hidden_layers) for name in LINEARS]:
            weight = state.pop(f"{layer}.weight")
            rows, cols = weight.shape
            codes, scale, zero = quantize(weight, group, symmetric, scale_dtype, 1)
            columns = torch.arange(cols) // (cols // scale.shape[1])
            if order == "permuted":
                columns = columns[torch.randperm(cols, generator=torch.Generator().manual_seed(cols))]
            self.weights[f"{layer}.weight"] = dequantize(codes, scale, zero, columns)
            self.parts[layer] = codes, scale, zero
            state.update({f"{layer}.{part}": t for part, t in self.pack(method, codes, scale, zero, columns, order).items()})
        state = {k: v.contiguous() for k, v in state.items()}
        if container == "safetensors":
            safetensors.torch.save_file(state, self.folder / "model.safetensors")
        else:
            torch.save(state, self.folder / "pytorch_model.bin")
        self.state = state
        settings = json.loads((self.folder / "config.json").read_text())
        settings["quantization_config"] = {**self.config(method, group, symmetric), **(config or {})}
        (self.folder / "config.json").write_text(json.dumps(settings))
        with torch.no_grad():
            for key, parameter in self.model.named_parameters():
                if key in self.weights:
                    parameter.copy_(self.weights[key])

    @staticmethod
    def pack(method, codes, scale, zero, columns, order):
        if method == "compressed-tensors":
            parts = {"weight_packed": pack(codes, 1), "weight_scale": scale,
                     "weight_shape": torch.tensor(codes.shape, dtype=torch.int64)}
            if not (zero == 8).all():
                parts["weight_zero_point"] = pack(zero, 0)
            return parts
        words_of_zeros = pack(zero.T - int(method == "gptq"), 1, AWQ_ORDER if method == "awq" else range(8))
        if method == "awq":
            return {"qweight": pack(codes.T, 1, AWQ_ORDER), "qzeros": words_of_zeros, "scales": scale.T}
        parts = {"qweight": pack(codes.T, 0), "qzeros": words_of_zeros, "scales": scale.T}
        return parts if order == "absent" else {**parts, "g_idx": columns.int()}

    @staticmethod
    def config(method, group, symmetric):
        if method == "compressed-tensors":
            weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "channel" if group == -1 else "group",
                       "group_size": None if group == -1 else group}
            return {"quant_method": method, "format": "pack-quantized", "ignore": ["lm_head"],
                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}}
        if method == "awq":
            return {"quant_method": method, "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
        return {"quant_method": "gptq", "bits": 4, "group_size": group, "sym": symmetric, "desc_act": False,
                **({"checkpoint_format": "gptq_v2"} if method == "gptq_v2" else {})}


def blocks(codes, scale, zero):
    """GGUF's Q4_0 blocks of symmetric codes, Q4_1 blocks of others: minus zero point times scale is the minimum."""
    codes, scale, zero = codes.numpy().astype(np.uint8), scale.half().numpy(), zero.numpy()
    rows, cols = codes.shape
    heads = [scale] if (zero == 8).all() else [scale, (-zero * scale.astype(np.float32)).astype(np.float16)]
    heads = [np.repeat(h, cols // 32 // scale.shape[1], axis=1).view(np.uint8).reshape(rows, cols // 32, 2) for h in heads]
    parts = codes.reshape(rows, cols // 32, 2, 16)
    return np.concatenate([*heads, parts[:, :, 0] | parts[:, :, 1] << 4], axis=2)


def exported_blocks(quire, path, tmp_path):
    """Blocks of each layer's matrix, read by PyPI's gguf from an export; rows as they are in a qwen2."""
    import gguf
    quire("export", path, tmp_path / "m.gguf", "--format", "gguf", "--force")
    return {t.name: np.asarray(t.data) for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors if t.tensor_type.name in ("Q4_0", "Q4_1")}


CARRIED = {
    "compressed-tensors": dict(method="compressed-tensors"),
    "compressed-tensors, groups of 64": dict(method="compressed-tensors", group=64),
    "compressed-tensors, groups of 128, bf16": dict(method="compressed-tensors", group=128, scale_dtype=torch.bfloat16),
    "compressed-tensors, channels": dict(method="compressed-tensors", group=-1),
    "compressed-tensors, .bin": dict(method="compressed-tensors", container="bin"),
    "gptq": dict(method="gptq"),
    "gptq, groups of 64": dict(method="gptq", group=64),
    "gptq, groups of 128, no g_idx": dict(method="gptq", group=128, order="absent"),
    "gptq, one group, .bin": dict(method="gptq", group=-1, container="bin"),
    "gptq_v2": dict(method="gptq_v2", group=128),
    "gptq, f32 scales": dict(method="gptq", group=64, scale_dtype=torch.float32),
    "awq, symmetric": dict(method="awq", group=128),
    "awq": dict(method="awq", group=128, symmetric=False),
    "gptq, asymmetric": dict(method="gptq", group=64, symmetric=False),
    "compressed-tensors, asymmetric": dict(method="compressed-tensors", symmetric=False),
}


@pytest.mark.parametrize("case", CARRIED)
def test_carried_bit_for_bit(quire, tmp_path, case):
    options = CARRIED[case]
    if options.get("scale_dtype") == torch.float32:  # only numbers that f16 has
        options = {**options, "scale_dtype": torch.float16}
    checkpoint = Checkpoint(tmp_path, name="qwen2_untied", **options)
    if case.endswith("f32 scales"):
        state = {k: v.float().contiguous() if k.endswith(".scales") else v for k, v in checkpoint.state.items()}
        safetensors.torch.save_file(state, checkpoint.folder / "model.safetensors")
    path = tmp_path / "m.quire"
    for type_flags in ([], ["--type", "q4_0" if options.get("symmetric", True) else "source"]):
        report = quire.json("convert", checkpoint.folder, path, "--tokenizer", "none", "--force", *type_flags)
        carried = {t["name"] for t in report["tensors"] if t["carried_over"]}
        assert len(carried) == 3 * 7
        found = exported_blocks(quire, path, tmp_path)
        names = dict(zip(LINEARS, ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]))
        for layer, parts in checkpoint.parts.items():
            i, name = layer.split(".", 3)[2:]
            assert np.array_equal(found[f"blk.{i}.{names[name]}.weight"].reshape(-1), blocks(*parts).reshape(-1)), layer
    quire("convert", checkpoint.folder, path, "--tokenizer", "none", "--force")
    ids = some_ids(60)
    assert worst(tool_logits(path, ids, 320), reference_logits(checkpoint.model, ids)) < 0.05


def test_a_quire_file_knows_no_rotation(quire, tmp_path):
    """A llama's layers are carried as they stand, and its logits are those of the dequantized model."""
    checkpoint = Checkpoint(tmp_path, "gptq", group=128)
    quire("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none")
    ids = some_ids(60)
    assert worst(tool_logits(tmp_path / "m.quire", ids, 320), reference_logits(checkpoint.model, ids)) < 0.05


NOT_CARRIED = {
    "columns in activation order": (dict(method="gptq", order="permuted"), "desc_act"),
    "asymmetric, in activation order": (dict(method="gptq", symmetric=False, order="permuted"), "desc_act"),
    "groups of 16": (dict(method="awq", group=16, symmetric=False), "multiples of 32"),
}


@pytest.mark.parametrize("case", NOT_CARRIED)
def test_what_cannot_be_carried_is_refused_and_can_be_dequantized(quire, tmp_path, case):
    options, word = NOT_CARRIED[case]
    checkpoint = Checkpoint(tmp_path, **options)
    path = tmp_path / "m.quire"
    for type_flags in ([], ["--type", "source"], ["--type", "q4_0"]):
        done = quire.run("convert", checkpoint.folder, path, "--tokenizer", "none", *type_flags)
        text = done.stderr.decode()
        assert done.returncode == 1 and text.count("\n") == 1 and word in text and "model.layers.0" in text and "--type" in text
        assert not path.exists()
    quire("convert", checkpoint.folder, path, "--tokenizer", "none", "--type", "f32")
    ids = some_ids(60)
    assert worst(tool_logits(path, ids, 320), reference_logits(checkpoint.model, ids)) < 2e-3


def test_scales_that_are_no_16_bit_floats(quire, tmp_path):
    checkpoint = Checkpoint(tmp_path, "compressed-tensors", scale_dtype=torch.bfloat16)
    key = "model.layers.1.mlp.up_proj.weight_scale"
    checkpoint.state[key][3, 2] = 1e-7
    safetensors.torch.save_file(checkpoint.state, checkpoint.folder / "model.safetensors")
    done = quire.run("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none")
    assert done.returncode == 1 and b"model.layers.1.mlp.up_proj" in done.stderr and b"row 3, group 2" in done.stderr
    checkpoint.state[key][3, 2] = float("nan")
    safetensors.torch.save_file(checkpoint.state, checkpoint.folder / "model.safetensors")
    done = quire.run("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none")
    assert done.returncode == 1 and b"not finite" in done.stderr and not (tmp_path / "m.quire").exists()


def test_autogptq_keeps_its_settings_beside_the_config(quire, tmp_path):
    checkpoint = Checkpoint(tmp_path, "gptq", group=128)
    config = json.loads((checkpoint.folder / "config.json").read_text())
    settings = config.pop("quantization_config")
    del settings["quant_method"]
    (checkpoint.folder / "config.json").write_text(json.dumps(config))
    (checkpoint.folder / "quantize_config.json").write_text(json.dumps(settings))
    report = quire.json("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none")
    assert sum(t["carried_over"] for t in report["tensors"]) == 21


@pytest.mark.parametrize("config, word", [
    ({"bits": 8}, "'bits' of 8"), ({"bits": "four"}, "'bits'"), ({"checkpoint_format": "marlin"}, "marlin"), ({"group_size": -7}, "-7"),
    ({"group_size": 64}, "says 64"), ({"quant_method": "hqq"}, "hqq"), ({"quant_method": 5}, "quant_method"),
])
def test_gptq_settings_that_are_refused(quire, tmp_path, config, word):
    checkpoint = Checkpoint(tmp_path, "gptq", config=config)
    done = quire.run("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and word in done.stderr.decode(), done.stderr


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_parts_of_wrong_shape_or_type_or_absent_are_named(quire, tmp_path, method):
    checkpoint = Checkpoint(tmp_path, method)
    layer = "model.layers.2.self_attn.o_proj"
    for part in [k for k in checkpoint.state if k.startswith(layer + ".")]:
        good = checkpoint.state[part]
        bad = [None, good[:-1], good.double() if good.is_floating_point() else good.short(), torch.cat([good, good]), good[None]]
        if part.endswith("g_idx"):
            bad = bad[1:] + [good + 1000, -good - 1]
        if part.endswith("shape"):
            bad += [torch.tensor([2**62, 8]), torch.tensor([-1, 8]), torch.tensor([0, 0]), good + 8]
        for value in bad:
            state = {**checkpoint.state, part: value}
            if value is None:
                del state[part]
            safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, checkpoint.folder / "model.safetensors")
            done = quire.run("convert", checkpoint.folder, tmp_path / "m.quire", "--tokenizer", "none", "--type", "q8")
            text = done.stderr.decode()
            assert done.returncode == 1 and text.count("\n") == 1 and layer in text, (part, value, text)
            assert not (tmp_path / "m.quire").exists()
