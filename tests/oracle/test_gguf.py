"""GGUF files against PyPI's gguf, which writes them here: lists, metadata, and decoding bit for bit."""
import os
import pathlib
import subprocess

import gguf
import numpy as np
import pytest
import xxhash
from gguf import GGMLQuantizationType as Q

ROOT = pathlib.Path(__file__).parents[2]
DECODE = pathlib.Path(os.environ.get("QUIRE", ROOT / "bazel-bin" / "quire")).parent / "tests/tools/decode"

BLOCKS = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K]
NAMES = {Q.F32: "float32", Q.F16: "float16", Q.BF16: "bfloat16", Q.F64: "float64", Q.I8: "int8", Q.I16: "int16",
         Q.I32: "int32", Q.I64: "int64"}


def decode(path, name):
    done = subprocess.run([DECODE, path, name], capture_output=True)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.float32)


def same_bits(ours, theirs):
    """Equal to the bit, where NaN equals NaN."""
    theirs = np.ascontiguousarray(theirs, np.float32).reshape(-1)
    assert ours.shape == theirs.shape
    nan = np.isnan(ours)
    np.testing.assert_array_equal(nan, np.isnan(theirs))
    np.testing.assert_array_equal(ours.view(np.uint32)[~nan], theirs.view(np.uint32)[~nan])


def random_blocks(qtype, blocks, seed):
    """Bytes at random: every code and every scale, infinities and NaN among them."""
    bytes_per_block = gguf.GGML_QUANT_SIZES[qtype][1]
    return np.random.default_rng(seed).integers(0, 256, (blocks // 4, 4 * bytes_per_block), dtype=np.uint8)


def write(path, tensors, add=lambda writer: None, arch="llama"):
    writer = gguf.GGUFWriter(path, arch)
    add(writer)
    for name, (data, qtype) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("qtype", BLOCKS + [Q.F16, Q.BF16], ids=lambda q: q.name)
def test_decodes_any_block_to_the_bit(tmp_path, qtype):
    data = random_blocks(qtype, 4096 if qtype in (Q.F16, Q.BF16) else 400, seed=int(qtype))
    path = write(tmp_path / "x.gguf", {"w": (data, qtype)})
    with np.errstate(all="ignore"):
        same_bits(decode(path, "w"), gguf.dequantize(data, qtype))


@pytest.mark.parametrize("qtype", [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.BF16, Q.F16, Q.F32], ids=lambda q: q.name)
def test_decodes_what_gguf_quantizes(tmp_path, qtype):
    weights = np.random.default_rng(5).standard_normal((48, 256)).astype(np.float32)
    data = gguf.quantize(weights, qtype)
    ours = decode(write(tmp_path / "x.gguf", {"w": (data, qtype)}), "w")
    same_bits(ours, gguf.dequantize(data, qtype))
    assert np.abs(ours.reshape(weights.shape) - weights).max() < 0.4  # the values, in their places


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float64])
def test_decodes_plain_types(tmp_path, dtype):
    data = (np.random.default_rng(6).standard_normal((5, 7)) * 100).astype(dtype)
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    same_bits(decode(path, "w"), data.astype(np.float32))


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_inspect_lists_what_the_reader_does(quire, tmp_path, alignment):
    rng = np.random.default_rng(7)
    tensors = {f"blk.{i}.{q.name}": (random_blocks(q, 8, seed=i), q) for i, q in enumerate(BLOCKS)}
    tensors["vector"] = (rng.standard_normal(7).astype(np.float32), None)
    tensors["cube"] = (rng.standard_normal((2, 3, 5)).astype(np.float16), None)
    tensors["integers"] = (np.arange(6, dtype=np.int32).reshape(3, 2), None)

    def add(writer):
        if alignment:
            writer.add_custom_alignment(alignment)
        writer.add_uint8("a.u8", 255)
        writer.add_int8("a.i8", -128)
        writer.add_uint16("a.u16", 65535)
        writer.add_int16("a.i16", -32768)
        writer.add_uint32("a.u32", 2**32 - 1)
        writer.add_int32("a.i32", -(2**31))
        writer.add_uint64("a.u64", 2**64 - 1)
        writer.add_int64("a.i64", -(2**63))
        writer.add_float32("a.f32", 0.1)
        writer.add_float64("a.f64", 0.1)
        writer.add_bool("a.bool", True)
        writer.add_string("a.string", 'quoted "é"\n世界')
        writer.add_array("a.strings", ["x", "", "é"])
        writer.add_array("a.numbers", [1, 2, 3])
        writer.add_array("a.floats", [0.5, 1.5])

    path = write(tmp_path / "x.gguf", tensors, add)
    listed = quire.json("inspect", path, "--checksums")
    reader = gguf.GGUFReader(path)
    assert listed["container"] == "gguf"
    assert listed["tensors"] == [
        {"name": t.name, "shape": [int(d) for d in reversed(t.shape)],
         "dtype": NAMES.get(t.tensor_type, t.tensor_type.name.lower()),
         "xxh3": xxhash.xxh3_64_hexdigest(np.ascontiguousarray(t.data).tobytes())}
        for t in reader.tensors
    ]
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        ours, theirs = listed["metadata"][key], field.contents()
        assert ours["length"] == len(theirs) if isinstance(theirs, list) else ours == theirs, key


def test_undecodable_types_are_named_not_misread(quire, tmp_path):
    path = write(tmp_path / "x.gguf", {"w": (random_blocks(Q.IQ4_XS, 8, seed=1), Q.IQ4_XS)})
    assert [t["dtype"] for t in quire.json("inspect", path)["tensors"]] == ["ggml_other"]
    assert subprocess.run([DECODE, path, "w"], capture_output=True).returncode == 1
