"""Exports, loaded by the libraries they are for: logits and tokens equal to Quire's own, and bytes that come back unchanged."""
import json
import os
import pathlib

import gguf
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import transformers
from tokenizers import processors

from test_forward import SHAPES, convert, make, reference_logits, some_ids, tool_logits, worst
from test_tokenizers import BYTE_LEVEL, LLAMA2, SENTENCEPIECE, SPECIALS, check, train_sentencepiece
from text_samples import samples
from tokenize_tool import TokenizeTool

EMBEDDED = pathlib.Path(__file__).parents[1] / "testdata" / "embedded"
# Logits of a reader that computes with the same weights in f32, as a part of their range: Quire's activations are
# 8-bit numbers beside quantized weights, and are not beside floats.
CLOSE = {"f32": 2e-3, "f16": 2e-3, "bf16": 2e-3, "q8": 0.05, "q4_0": 0.05, "q4": 0.05}


def close(path, kind, model, ids):
    ours = tool_logits(path, ids, model.config.vocab_size)
    theirs = reference_logits(model, ids)
    assert worst(ours, theirs) < CLOSE[kind]
    return theirs


def load_folder(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_gguf(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


def tensors_of(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module", params=["f16", "q8", "q4_0", "q4"])
def embedded(request, quire, tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded") / "m.quire"
    quire("convert", EMBEDDED, path, "--type", request.param)
    return request.param, path


TEXTS = ["It is a truth universally acknowledged", "Emma  Woodhouse,\nhandsome", "naïve 世界 123", " leading", ""]


def test_safetensors_of_the_embedded_model(quire, embedded, tmp_path):
    kind, path = embedded
    quire("export", path, tmp_path / "hf", "--format", "safetensors")
    close(path, kind, load_folder(tmp_path / "hf"), some_ids(120, 2048))
    ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
    assert (ours.bos_token_id, ours.eos_token_id) == (1, 2)
    quire("convert", tmp_path / "hf", tmp_path / "again.quire", "--type", "f16")
    if kind == "f16":
        listed = [{(t["name"], t["checksum"]) for t in quire.json("inspect", p)["tensors"]} for p in (path, tmp_path / "again.quire")]
        assert listed[0] == listed[1]


def test_gguf_of_the_embedded_model(quire, embedded, tmp_path):
    kind, path = embedded
    quire("export", path, tmp_path / "m.gguf", "--format", "gguf")
    close(path, kind, load_gguf(tmp_path / "m.gguf"), some_ids(120, 2048))
    with TokenizeTool(EMBEDDED / "tokenizer.model") as tool:
        quire("convert", tmp_path / "m.gguf", tmp_path / "again.quire", "--type", "source")
        for text in TEXTS:
            again = quire.json("run", tmp_path / "again.quire", "-p", text, "-n", "1")
            assert again["prompt_tokens"] == tool.encode(text, bos=True)
    types = {t.tensor_type.name for t in tensors_of(tmp_path / "m.gguf").values()}
    assert types == {"f16": {"F16", "F32"}, "q8": {"Q8_0", "F32"}, "q4_0": {"Q4_0", "F32"},
                     "q4": {"F16", "F32"}}[kind]


def test_merges_of_characters_become_scores(quire, tmp_path):
    """A sentencepiece tokenizer that came as tokenizer.json: GGUF has scores, which the merges' order gives."""
    folder = tmp_path / "json"
    folder.mkdir()
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "pytorch_model.bin"):
        (folder / name).write_bytes((EMBEDDED / name).read_bytes())
    (folder / "tokenizer.model").unlink(missing_ok=True)
    quire("convert", folder, tmp_path / "m.quire", "--type", "q8")
    report = quire.json("export", tmp_path / "m.quire", tmp_path / "m.gguf", "--format", "gguf")
    assert all("before texts that begin with" in note for note in report["notes"])
    quire("convert", tmp_path / "m.gguf", tmp_path / "again.quire", "--type", "source")
    for text in TEXTS[:3]:
        assert quire.json("run", tmp_path / "again.quire", "-p", text, "-n", "1")["prompt_tokens"] == tokenizer.encode(text)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(quire, tmp_path, name):
    """Permuted heads, odd sizes, biases, tied embeddings, rope scaling: through both loaders of transformers."""
    folder, _ = make(tmp_path, name)
    quire_file, hf = tmp_path / "m.quire", tmp_path / "hf"
    convert(quire, folder, quire_file, "f16")
    ids = some_ids(200)
    quire("export", quire_file, hf, "--format", "safetensors")
    close(quire_file, "f16", load_folder(hf), ids)
    path = tmp_path / "m.gguf"
    report = quire.json("export", quire_file, path, "--format", "gguf")
    assert bool(report["notes"]) == (name == "mistral_window"), report["notes"]
    if name == "linear":  # transformers does not read it from GGUF
        quire("convert", path, tmp_path / "again.quire", "--type", "f32", "--tokenizer", "none")
        assert worst(tool_logits(tmp_path / "again.quire", ids, 320), tool_logits(quire_file, ids, 320)) < 2e-3
    elif name not in ("llama3", "odd_sizes", "mistral_window", "wide_heads"):
        close(quire_file, "f16", load_gguf(path), ids)


# llama.cpp itself, where llama-cpp-python is there: its build takes ten minutes, too long for the common test run.

def llama_cpp_logits(path, ids):
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python, to run exports by llama.cpp")
    model = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, n_threads=2, logits_all=True, verbose=False)
    model.eval(ids)
    return model, np.array(model.scores[:len(ids)], np.float32)


@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_runs_every_shape(quire, tmp_path, name):
    folder, _ = make(tmp_path, name)
    convert(quire, folder, tmp_path / "m.quire", "f16")
    quire("export", tmp_path / "m.quire", tmp_path / "m.gguf", "--format", "gguf")
    ids = some_ids(24 if name == "mistral_window" else 100)  # it has no window there
    _, theirs = llama_cpp_logits(tmp_path / "m.gguf", ids)
    assert worst(theirs, tool_logits(tmp_path / "m.quire", ids, 320)) < 5e-3


def test_llama_cpp_runs_the_embedded_model(quire, embedded, tmp_path):
    kind, path = embedded
    quire("export", path, tmp_path / "m.gguf", "--format", "gguf")
    ids = some_ids(120, 2048)
    model, theirs = llama_cpp_logits(tmp_path / "m.gguf", ids)
    assert worst(theirs, tool_logits(path, ids, 2048)) < CLOSE[kind]
    for text in TEXTS:
        wanted = quire.json("run", path, "-p", text, "-n", "1")["prompt_tokens"]
        assert model.tokenize(text.encode(), add_bos=True) == wanted, text


@pytest.mark.parametrize("name", ["llama", "qwen2_untied"])
def test_gguf_round_trip(quire, tmp_path, name):
    """GGUF Q4_0, Q4_1 and Q8_0, through a .quire file, are the same bytes."""
    folder, _ = make(tmp_path, name, intermediate_size=192)
    convert(quire, folder, tmp_path / "f32.quire", "f32")
    quire("export", tmp_path / "f32.quire", tmp_path / "f32.gguf", "--format", "gguf")
    plain = gguf.GGUFReader(tmp_path / "f32.gguf")
    for qtype in map(gguf.GGMLQuantizationType.__getitem__, ("Q4_0", "Q4_1", "Q8_0")):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", plain.fields["general.architecture"].contents())
        for key, field in plain.fields.items():
            if not key.startswith(("GGUF.", "general.architecture")):
                writer.add_key_value(key, field.contents(), field.types[0])
        for t in plain.tensors:
            matrix = len(t.shape) == 2
            data = np.asarray(t.data).reshape([int(d) for d in reversed(t.shape)])
            writer.add_tensor(t.name, gguf.quantize(data, qtype) if matrix else data, raw_dtype=qtype if matrix else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        quire("convert", tmp_path / "a.gguf", tmp_path / "a.quire", "--type", "source", "--tokenizer", "none", "--force")
        quire("export", tmp_path / "a.quire", tmp_path / "b.gguf", "--format", "gguf", "--force")
        a, b = tensors_of(tmp_path / "a.gguf"), tensors_of(tmp_path / "b.gguf")
        assert a.keys() == b.keys()
        for key, t in a.items():
            assert t.tensor_type == b[key].tensor_type and np.array_equal(t.data, b[key].data), key


@pytest.mark.parametrize("name", ["llama", "odd_sizes", "qwen2"])
def test_compressed_tensors(quire, tmp_path, name):
    folder, _ = make(tmp_path, name, intermediate_size=192)
    path, packed = tmp_path / "m.quire", tmp_path / "packed"
    convert(quire, folder, path, "q4_0")
    report = quire.json("export", path, packed, "--format", "compressed-tensors")
    assert {t["type"] for t in report["tensors"] if t["source_type"] == "q4_0"} <= {"pack-quantized", "F16"}
    model = load_folder(packed)
    close(path, "q4_0", model, some_ids(100))
    # What the library itself packs from these codes.
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
    stored = safetensors.torch.load_file(packed / "model.safetensors")
    layers = [k[:-len(".weight_packed")] for k in stored if k.endswith(".weight_packed")]
    tied = "lm_head.weight_packed" not in stored
    assert len(layers) == 3 * 7 + (not tied)
    quire("export", path, tmp_path / "m.gguf", "--format", "gguf")
    for layer in layers:
        shape, scale, words = (stored[f"{layer}.weight_{part}"] for part in ("shape", "scale", "packed"))
        codes = unpack_from_int32(words, 4, torch.Size(shape.tolist()))
        assert torch.equal(pack_to_int32(codes, 4), words)
        assert scale.dtype == torch.float16 and list(scale.shape) == [shape[0], shape[1] // 32]
    # And back: the same .quire tensors, the same folder.
    quire("convert", packed, tmp_path / "again.quire", "--tokenizer", "none")
    listed = [{t["name"]: (t["type"], t["checksum"]) for t in quire.json("inspect", p)["tensors"]}
              for p in (path, tmp_path / "again.quire")]
    for key, value in listed[0].items():
        if key != "embedding":  # no linear layer: f16 in the folder
            assert listed[1][key] == value, key
    quire("export", tmp_path / "again.quire", tmp_path / "packed2", "--format", "compressed-tensors")
    assert (packed / "model.safetensors").read_bytes() == (tmp_path / "packed2" / "model.safetensors").read_bytes()


# Tokenizers, through every file an export writes.

def check_folder_tokenizer(quire, source, tmp_path, texts, folder=None):
    """A model with this tokenizer, exported: the folder's tokenizer does what the source's does."""
    if folder is None:
        folder, _ = make(tmp_path, "llama", vocab_size=1600)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / source.name).write_bytes(source.read_bytes())
    quire("convert", folder, tmp_path / "m.quire", "--type", "q8", "--force")
    quire("export", tmp_path / "m.quire", tmp_path / "out", "--format", "safetensors", "--force")
    with TokenizeTool(source) as before, TokenizeTool(tmp_path / "out") as after:
        for text in texts:
            for special in (False, True):
                ids = before.encode(text, special=special, bos=True)
                assert after.encode(text, special=special, bos=True) == ids, text
                assert after.decode(ids, special=special) == before.decode(ids, special=special), text
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["llama", "bpe_nfkc", "unigram_nfkc_cf"])
def test_sentencepiece_tokenizer(quire, tmp_path, name):
    import sentencepiece
    reference = train_sentencepiece(tmp_path, SENTENCEPIECE[name])
    texts = samples(150, extra=["<sep>", "ing", "Ａ", "the", "日月"])
    out = check_folder_tokenizer(quire, tmp_path / "tokenizer.model", tmp_path, texts)
    exported = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    assert [exported.encode(t) for t in texts] == [reference.encode(t) for t in texts]
    assert (exported.bos_id(), exported.eos_id(), exported.unk_id()) == (reference.bos_id(), reference.eos_id(), reference.unk_id())


@pytest.mark.parametrize("name", ["gpt2_prefix_space", "smollm", "llama3", "qwen2", "nfkd", "split_merged_with_next_inverted"])
def test_byte_level_tokenizer(quire, tmp_path, name):
    tokenizer = BYTE_LEVEL[name]()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    texts = samples(150, extra=SPECIALS)
    out = check_folder_tokenizer(quire, path, tmp_path, texts)
    loaded = transformers.AutoTokenizer.from_pretrained(out)
    for text in texts:
        assert loaded.encode(text) == tokenizer.encode(text).ids, text
        assert loaded.decode(tokenizer.encode(text).ids) == tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False), text


@pytest.mark.parametrize("name", ["legacy", "unknown", "metaspace_first", "metaspace_always"])
def test_character_level_tokenizer(quire, tmp_path, name):
    tokenizer = LLAMA2[name]()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    texts = samples(150, extra=["<s>", "</s>", "<unk>"])
    out = check_folder_tokenizer(quire, path, tmp_path, texts)
    loaded = transformers.AutoTokenizer.from_pretrained(out)
    for text in texts:
        assert loaded.encode(text) == tokenizer.encode(text).ids, text
