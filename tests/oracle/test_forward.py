"""The forward pass against transformers in f32, on small random models of every supported shape."""
import json
import math
import os
import pathlib
import subprocess

import numpy as np
import pytest
import sentencepiece
import torch
import transformers

import models
from tokenize_tool import TokenizeTool

ROOT = pathlib.Path(__file__).parents[2]
LOGITS = pathlib.Path(os.environ.get("QUIRE", ROOT / "bazel-bin" / "quire")).parent / "tests/tools/logits"

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
SHAPES = {
    "llama": dict(num_key_value_heads=4),
    "odd_sizes": dict(head_dim=8, num_attention_heads=8, intermediate_size=172, tie_word_embeddings=True),
    "wide_heads": dict(head_dim=64, num_attention_heads=2, num_key_value_heads=1, hidden_size=96),
    "llama3": dict(head_dim=32, rope_parameters=LLAMA3),
    "linear": dict(rope_parameters=LINEAR),
    "mistral": dict(sliding_window=None),
    "mistral_window": dict(sliding_window=24),
    "qwen2": dict(tie_word_embeddings=True),
    "qwen2_untied": dict(num_key_value_heads=1, rms_norm_eps=1e-6),
}


def make(tmp_path, name, **changes):
    """(folder, model) of a shape, with weights that attend neither evenly nor to one token."""
    sizes = dict(vocab_size=320, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    family = {"mistral": "Mistral", "qwen2": "Qwen2"}.get(name.split("_")[0], "Llama")
    config = getattr(transformers, family + "Config")(**{**sizes, **SHAPES[name], **changes})
    model = getattr(transformers, family + "ForCausalLM")(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else noise / parameter.shape[-1] ** 0.5)
    model = model.eval()
    models.save(tmp_path / name, model)
    return tmp_path / name, model


def convert(quire, folder, path, kind):
    text = [] if (folder / "tokenizer.model").exists() else ["--tokenizer", "none"]
    quire("convert", folder, path, "--type", kind, *text)


def tool_logits(path, ids, vocab, *args, env=None):
    done = subprocess.run([LOGITS, path, *args], input=" ".join(map(str, ids)).encode(), capture_output=True,
                          env={**os.environ, **(env or {})}, check=True)
    return np.frombuffer(done.stdout, np.float32).reshape(len(ids), vocab)


def tool_greedy(path, ids, n):
    done = subprocess.run([LOGITS, path, "--greedy", str(n)], input=" ".join(map(str, ids)).encode(),
                          capture_output=True, check=True)
    return [int(line) for line in done.stdout.split()]


def some_ids(n, vocab=320):
    return torch.randint(0, vocab, (n,), generator=torch.Generator().manual_seed(5)).tolist()


@torch.no_grad()
def reference_logits(model, ids):
    return model(torch.tensor([ids])).logits[0].float().numpy()


@torch.no_grad()
def round_weights(model, dtype):
    """The model in f32 again. Vectors stay as they were, as convert keeps them in f32."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(parameter.to(dtype).float())
    return model


def worst(found, wanted):
    """The largest difference as a part of the range of that token's logits."""
    return (np.abs(found - wanted).max(-1) / (wanted.max(-1) - wanted.min(-1))).max()


@pytest.mark.parametrize("name", SHAPES)
def test_logits(quire, tmp_path, name):
    folder, model = make(tmp_path, name)
    ids = some_ids(200)
    wanted = reference_logits(model, ids)
    for kind in ("f32", "source"):
        convert(quire, folder, tmp_path / f"{kind}.quire", kind)
        assert worst(tool_logits(tmp_path / f"{kind}.quire", ids, 320), wanted) < 1e-3
    convert(quire, folder, tmp_path / "f16.quire", "f16")
    rounded = reference_logits(round_weights(model, torch.float16), ids)
    assert worst(tool_logits(tmp_path / "f16.quire", ids, 320), rounded) < 1e-3


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_tokens(quire, tmp_path, name):
    folder, model = make(tmp_path, name)
    ids = some_ids(20)
    with torch.no_grad():
        wanted = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False, eos_token_id=-1)[0, 20:].tolist()
    convert(quire, folder, tmp_path / "m.quire", "f32")
    assert tool_greedy(tmp_path / "m.quire", ids, 64) == wanted


def test_bfloat16_source(quire, tmp_path):
    """A bf16 checkpoint kept as it is, against the same weights in f32."""
    folder, model = make(tmp_path, "odd_sizes")
    round_weights(model, torch.bfloat16)
    torch.save({k: v.bfloat16() if v.ndim == 2 else v for k, v in model.state_dict().items()},
               folder / "pytorch_model.bin")
    convert(quire, folder, tmp_path / "m.quire", "source")
    ids = some_ids(100)
    assert worst(tool_logits(tmp_path / "m.quire", ids, 320), reference_logits(model, ids)) < 1e-3


@pytest.mark.parametrize("kind", ["q8", "q4", "q4_0"])
def test_kernels_and_threads_agree_to_the_bit(quire, tmp_path, kind):
    folder, _ = make(tmp_path, "odd_sizes")
    convert(quire, folder, tmp_path / "m.quire", kind)
    ids = some_ids(150)
    scalar = tool_logits(tmp_path / "m.quire", ids, 320, "--threads", "1", env={"QUIRE_KERNELS": "scalar"})
    for threads in ("1", "2", "3"):
        assert np.array_equal(tool_logits(tmp_path / "m.quire", ids, 320, "--threads", threads), scalar)


TEXT = "".join(f"{a} {b} and the {c} went {d} over {i} hills.\n" for i, (a, b, c, d) in enumerate(
    (a, b, c, d) for a in ("A small", "The old", "One red") for b in ("fox", "dog", "hen", "cat")
    for c in ("river", "wind", "moon", "rain") for d in ("up", "down", "far")))


@pytest.fixture
def with_tokenizer(tmp_path):
    """A random model beside a tokenizer for TEXT, and the ids of TEXT without BOS."""
    (tmp_path / "text.txt").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "tok"), model_type="bpe", vocab_size=320,
        byte_fallback=True, hard_vocab_limit=True, minloglevel=2)
    folder, model = make(tmp_path, "llama")
    (tmp_path / "tok.model").rename(folder / "tokenizer.model")
    ids = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(TEXT)
    assert len(ids) > 600
    return folder, model, ids


def chunks_of(ids, ctx):
    """Chunks of ctx tokens, the first replaced by BOS, as the perplexity verb cuts them."""
    ids = [1] + ids
    return [[1] + ids[i + 1:i + ctx] for i in range(0, len(ids) - ctx + 1, ctx)]


def second_half(values, ctx):
    """Rows at positions ctx/2 .. ctx-2: the predictions that count."""
    return values[ctx // 2:ctx - 1]


def test_perplexity(quire, tmp_path, with_tokenizer):
    folder, model, ids = with_tokenizer
    convert(quire, folder, tmp_path / "f16.quire", "f16")
    ctx, total, count = 128, 0.0, 0
    for chunk in chunks_of(ids, ctx):
        log_p = torch.log_softmax(torch.tensor(reference_logits(model, chunk)).double(), -1)
        picked = log_p[torch.arange(ctx - 1), torch.tensor(chunk[1:])]
        total -= second_half(torch.cat([picked, picked[:1]]), ctx).sum().item()
        count += ctx - 1 - ctx // 2
    found = quire.json("perplexity", tmp_path / "f16.quire", "-f", tmp_path / "text.txt", "--ctx", ctx)
    assert found["tokens"] == count
    assert found["nll"] == pytest.approx(total / count, rel=1e-3)
    assert found["perplexity"] == pytest.approx(math.exp(found["nll"]), rel=1e-9)
    fewer = quire.json("perplexity", tmp_path / "f16.quire", "-f", tmp_path / "text.txt", "--ctx", ctx, "--chunks", 2)
    assert fewer["tokens"] == 2 * (ctx - 1 - ctx // 2)


def test_divergence(quire, tmp_path, with_tokenizer):
    folder, _, ids = with_tokenizer
    ctx, base, small = 64, tmp_path / "f16.quire", tmp_path / "q4.quire"
    convert(quire, folder, base, "f16")
    convert(quire, folder, small, "q4")
    klds, agree = [], []
    for chunk in chunks_of(ids, ctx):
        p, q = (torch.log_softmax(torch.tensor(second_half(tool_logits(path, chunk, 320), ctx)).double(), -1)
                for path in (base, small))
        klds += (p.exp() * (p - q)).sum(-1).tolist()
        agree += (p.argmax(-1) == q.argmax(-1)).double().tolist()
    measure = ["-f", tmp_path / "text.txt", "--ctx", ctx]
    plain = quire.json("perplexity", base, *measure, "--save-logits", tmp_path / "base.logits")
    assert "mean_kld" not in plain
    found = quire.json("perplexity", small, *measure, "--kl-base", tmp_path / "base.logits")
    assert found["mean_kld"] == pytest.approx(np.mean(klds), rel=1e-3, abs=1e-5)
    assert found["p99_kld"] == pytest.approx(np.quantile(klds, 0.99), rel=1e-3, abs=1e-4)
    assert found["top1_agreement"] == pytest.approx(np.mean(agree), abs=1e-9)
    itself = quire.json("perplexity", base, *measure, "--kl-base", tmp_path / "base.logits")
    assert 0 <= itself["mean_kld"] < 1e-6 and itself["top1_agreement"] == 1
    # What cannot be compared is refused, and a base is never written over.
    for arguments, code in ((["--ctx", 32, "--kl-base", tmp_path / "base.logits"], b"context"),
                            (["--ctx", ctx, "--save-logits", tmp_path / "base.logits"], b"exists"),
                            (["--ctx", ctx, "--kl-base", folder / "config.json"], b"--save-logits")):
        done = quire.run("perplexity", base, "-f", tmp_path / "text.txt", *arguments)
        assert done.returncode == 1 and code in done.stderr and done.stderr.count(b"\n") == 1, done.stderr


def test_run(quire, tmp_path, with_tokenizer):
    folder, model, _ = with_tokenizer
    path = tmp_path / "m.quire"
    convert(quire, folder, path, "f32")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    prompt = "The old fox"
    ids = [1] + processor.encode(prompt)
    with torch.no_grad():
        wanted = model.generate(torch.tensor([ids]), max_new_tokens=32, do_sample=False, eos_token_id=-1)[0, len(ids):]
    found = quire.json("run", path, "-p", prompt, "-n", 32, "--ignore-eos")
    assert found["prompt_tokens"] == ids
    assert found["tokens"] == wanted.tolist()
    for key in ("open_ms", "first_token_ms", "prefill_tokens_per_second", "decode_tokens_per_second"):
        assert found[key] > 0, key
    assert found["open_ms"] < found["first_token_ms"]
    # The same from a file and from standard input, streamed.
    (tmp_path / "prompt.txt").write_text(prompt)
    streamed = found["text"] + "\n"
    assert quire("run", path, "-f", tmp_path / "prompt.txt", "-n", 32, "--ignore-eos") == streamed
    assert quire("run", path, "-n", 32, "--ignore-eos", input=prompt.encode()) == streamed
    # Sampling: one seed, one text, on any number of threads.
    draw = ["run", path, "-p", prompt, "-n", 32, "--ignore-eos", "--temp", "1", "--top-k", 50, "--top-p", "0.95"]
    texts = {quire(*draw, "--seed", seed, "--threads", threads) for seed in (1, 2) for threads in (1, 2, 3)}
    assert len(texts) == 2


def test_run_refuses_in_one_line(quire, tmp_path, with_tokenizer):
    folder, _, _ = with_tokenizer
    path = tmp_path / "m.quire"
    convert(quire, folder, path, "q4")
    long = "The old fox went. " * 200
    for arguments, exit_code, message in (
            (["-p", long], 1, "tokens long, the context 256; --ctx takes up to 256"),
            (["-p", "a", "--ctx", 999], 1, "this model takes 1 to 256"),
            (["-p", "a", "--chat"], 1, "template"),
            (["-p", "a", "-f", "b"], 2, "-p or -f"),
            (["-p", "a", "--temp", "-1"], 2, "--temp is -1"),
            (["-p", "a", "--threads", "-1"], 2, "--threads is -1"),
            (["-f", tmp_path / "none"], 1, "No such file"),
    ):
        done = quire.run("run", path, *arguments)
        assert done.returncode == exit_code, done.stderr
        assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1, done.stderr
    done = quire.run("run", path, "-p", "a", env={"QUIRE_KERNELS": "vax"})
    assert done.returncode == 1 and b"QUIRE_KERNELS=vax" in done.stderr and b"scalar" in done.stderr


def test_chat(quire, tmp_path, with_tokenizer):
    """Two turns from standard input; the second is what a model says that sees the whole conversation at once."""
    folder, _, _ = with_tokenizer
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}assistant:"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    path = tmp_path / "m.quire"
    convert(quire, folder, path, "f32")
    questions = ["The old fox", "One red hen"]
    text, answers = "", []
    with TokenizeTool(folder) as tool:
        for question in questions:
            text += f"user: {question}\n"
            ids = tool.encode(text + "assistant:", special=True)
            answers.append(tool.decode(tool_greedy(path, ids, 12)))
            text += f"assistant: {answers[-1]}\n"
            if question == questions[0]:
                found = quire.json("run", path, "--chat", "-p", question, "-n", 12, "--ignore-eos")
                assert found["prompt_tokens"] == ids and found["text"] == answers[0]
    said = quire("run", path, "--chat", "-n", 12, "--ignore-eos", input="\n".join(questions).encode())
    assert said == "".join(answer + "\n" for answer in answers)


def test_bench(quire, tmp_path):
    folder, _ = make(tmp_path, "llama")
    convert(quire, folder, tmp_path / "m.quire", "q4")
    found = quire.json("bench", tmp_path / "m.quire", "--prompt-tokens", 16, "--tokens", 8, "--repetitions", 2,
                       "--processes", 2, "--threads", 1)
    assert found["model_bytes"] == (tmp_path / "m.quire").stat().st_size
    assert 0 < found["open_ms"] < found["first_token_ms"]
    assert found["prefill_tokens_per_second"] > 0 and found["decode_tokens_per_second"] > 0
    assert 0 < found["decode_bytes_per_token"] < found["model_bytes"]
    assert found["memory_read_bytes_per_second"] > 1e8
    assert len(found["processes"]) == 2
    for process in found["processes"]:
        assert process["peak_rss_bytes"] >= process["rss_anon_bytes"] > 0
        assert process["rss_file_bytes"] > 0 and process["pss_bytes"] > 0
        assert set(process) == {"rss_anon_bytes", "rss_file_bytes", "pss_bytes", "private_dirty_bytes", "peak_rss_bytes",
                                "minor_faults", "major_faults", "read_bytes"}
    assert found["total_pss_bytes"] == sum(p["pss_bytes"] for p in found["processes"])
    done = quire.run("bench", tmp_path / "missing.quire")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


def test_bench_within_a_memory_limit(quire, tmp_path):
    """Limited to less than the file and cold, a model runs from what the cache may keep of it; or, where the user may
    make no cgroup, one line says so."""
    folder, _ = make(tmp_path, "llama", hidden_size=512, intermediate_size=4096)
    path = tmp_path / "m.quire"
    convert(quire, folder, path, "f32")
    limit = path.stat().st_size // 2 + (16 << 20)
    assert limit < path.stat().st_size
    done = quire.run("bench", path, "--prompt-tokens", 4, "--tokens", 4, "--repetitions", 1, "--threads", 1,
                     "--memory-limit", limit, "--json")
    if done.returncode == 1:
        assert b"cgroup" in done.stderr and done.stderr.count(b"\n") == 1, done.stderr
        pytest.skip("may make no memory cgroup here")
    found = json.loads(done.stdout)
    assert found["memory_limit_bytes"] == limit
    process = found["processes"][0]
    assert process["rss_file_bytes"] < path.stat().st_size
    if found["resident_before_bytes"] == 0:
        assert process["read_bytes"] > path.stat().st_size  # more than once: it does not all fit
