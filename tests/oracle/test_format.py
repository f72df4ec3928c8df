"""The independent reader (tests/quire_reader.py) against what convert writes, and against values that torch and gguf know."""
import pathlib
import sys

import numpy as np
import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from quire_reader import QuireFile

import models

NAMES = {"model.embed_tokens.weight": "embedding", "model.norm.weight": "norm", "lm_head.weight": "output"}
LAYER = {"self_attn.q_proj.weight": "wq", "self_attn.k_proj.weight": "wk", "self_attn.v_proj.weight": "wv",
         "self_attn.o_proj.weight": "wo", "mlp.gate_proj.weight": "w_gate", "mlp.up_proj.weight": "w_up",
         "mlp.down_proj.weight": "w_down", "input_layernorm.weight": "attn_norm", "post_attention_layernorm.weight": "ffn_norm"}


def canonical(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"layers.{layer}.{LAYER[rest]}"


def test_golden_file_reads():
    f = QuireFile(pathlib.Path(__file__).parents[1] / "testdata" / "golden.quire")
    assert list(f.tensors) == ["embedding"] + [f"layers.0.{n}" for n in ("attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w_gate",
                                               "w_up", "w_down")] + ["norm", "output"]
    for name in f.tensors:
        assert np.isfinite(f.tensor(name)).all()


def test_damaged_files_are_refused(tmp_path):
    golden = (pathlib.Path(__file__).parents[1] / "testdata" / "golden.quire").read_bytes()
    for at in (0, 8, 33, 41, 60, 70, 16384 + 5, len(golden) - 1):  # magic to manifest, a tensor, the last padding
        (tmp_path / "m.quire").write_bytes(golden[:at] + bytes([golden[at] ^ 1]) + golden[at + 1 :])
        with pytest.raises(AssertionError):
            QuireFile(tmp_path / "m.quire")
    (tmp_path / "m.quire").write_bytes(golden[:-16384])
    with pytest.raises(AssertionError):
        QuireFile(tmp_path / "m.quire")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind, bound", [("f32", 0), ("source", 0), ("f16", 6e-4), ("bf16", 4e-3), ("q8", 8e-3), ("q4_0", 0.13), ("q4", 0.12)])
def test_values_are_those_of_the_checkpoint(tmp_path, quire, kind, bound, tied):
    """bound: relative RMS error of each matrix; 0: equal to the bit."""
    folder, model = models.tiny_llama(tmp_path, ffn=172, tied=tied)
    quire("convert", folder, tmp_path / "m.quire", "--type", kind, "--tokenizer", "none")
    f = QuireFile(tmp_path / "m.quire")
    seen = set()
    for name, want in model.state_dict().items():
        if tied and name == "lm_head.weight":
            assert "output" not in f.tensors
            continue
        seen.add(canonical(name))
        got, want = f.tensor(canonical(name)), want.float().numpy()
        if want.ndim == 1 or bound == 0:
            assert np.array_equal(got, want), name
        else:
            error = np.sqrt(((got - want) ** 2).sum() / (want**2).sum())
            assert error <= bound, (name, error)
    assert seen == set(f.tensors)


@pytest.mark.parametrize("kind, bound", [("q4_1", 0.11), ("q5", 0.05), ("q6", 0.03)])
def test_values_of_kept_types(tmp_path, quire, kind, bound):
    """Types that no scheme gives to all: panels, and rows of an embedding that is only gathered."""
    folder, model = models.tiny_llama(tmp_path, ffn=172, tied=False)
    quire("convert", folder, tmp_path / "f.quire", "--type", "f32", "--tokenizer", "none")
    quire("quantize", tmp_path / "f.quire", tmp_path / "m.quire", "--type", "q8", "--keep", "*=" + kind)
    f = QuireFile(tmp_path / "m.quire")
    for name, want in model.state_dict().items():
        got, want = f.tensor(canonical(name)), want.float().numpy()
        if want.ndim == 2:
            assert f.tensors[canonical(name)].encoding == kind
            error = np.sqrt(((got - want) ** 2).sum() / (want**2).sum())
            assert error <= bound, (name, error)


def test_bf16_source_is_kept(tmp_path, quire):
    folder, model = models.tiny_llama(tmp_path, dtype=torch.bfloat16)
    quire("convert", folder, tmp_path / "m.quire", "--type", "source", "--tokenizer", "none")
    f = QuireFile(tmp_path / "m.quire")
    for name, want in model.state_dict().items():
        assert np.array_equal(f.tensor(canonical(name)), want.float().numpy())
        assert f.tensors[canonical(name)].encoding == ("f32" if want.ndim == 1 else "bf16")
