"""The command line as a user meets it: the embedded checkpoint from file to text, and bad input of each kind.

A failure is one line on stderr, exit code 1, and no output left behind; wrong usage is exit code 2.
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "faults"))
from tiny_model import make_checkpoint  # noqa: E402

EMBEDDED = pathlib.Path(__file__).parents[1] / "testdata" / "embedded"
VERBS = ["convert", "quantize", "calibrate", "export", "run", "bench", "perplexity", "inspect", "verify", "footprint"]


@pytest.fixture(scope="module")
def model(quire, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.quire"
    quire("convert", EMBEDDED, path)
    return path


def cap():
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))  # seconds
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))


def fails(quire, *args, code=1, words=(), left=None):
    done = quire.run(*args, preexec_fn=cap)
    text = done.stderr.decode()
    assert done.returncode == code, text
    if code == 1:
        assert text.count("\n") == 1 and text.endswith("\n"), text
    for word in words:
        assert word in text, text
    if left is not None:
        assert list(left.iterdir()) == [], "something was left behind"
    return text


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(EMBEDDED, folder)
    return folder


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# What works.

def test_every_verb_has_help_with_an_example(quire):
    for verb in VERBS:
        text = quire(verb, "--help")
        assert text.startswith(f"quire {verb}: ") and f"\n  quire {verb} " in text, text
    assert all(verb in quire("--help") for verb in VERBS)
    assert quire("--version").startswith("quire ")


def test_text_and_json_agree_and_a_seed_repeats(quire, model):
    text = quire("run", model, "-p", "It was a", "-n", "24", "--temp", "0.8", "--seed", "5")
    first = quire.json("run", model, "-p", "It was a", "-n", "24", "--temp", "0.8", "--seed", "5")
    again = quire.json("run", model, "-p", "It was a", "-n", "24", "--temp", "0.8", "--seed", "5", "--threads", "1")
    assert first["tokens"] == again["tokens"] and len(first["tokens"]) == 24
    assert first["text"] in text
    for key in ("prompt_tokens", "open_ms", "first_token_ms", "prefill_tokens_per_second", "decode_tokens_per_second"):
        assert key in first
    assert first["open_ms"] < first["first_token_ms"]


def test_prompt_from_file_and_standard_input(quire, model, tmp_path):
    (tmp_path / "p").write_text("She was")
    want = quire.json("run", model, "-p", "She was", "-n", "5")["tokens"]
    assert quire.json("run", model, "-f", tmp_path / "p", "-n", "5")["tokens"] == want
    assert quire.json("run", model, "-n", "5", input=b"She was")["tokens"] == want
    assert quire.json("run", model, "-f", "/dev/stdin", "-n", "5", input=b"She was")["tokens"] == want
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"printf 'She was' > {pipe}"]):
        assert quire.json("run", model, "-f", pipe, "-n", "5")["tokens"] == want


def test_convert_reports_what_it_did(quire, out):
    report = quire.json("convert", EMBEDDED, out / "m.quire", "--type", "q8")
    assert report["file_bytes"] == (out / "m.quire").stat().st_size
    assert report["source_bytes"] == (EMBEDDED / "pytorch_model.bin").stat().st_size
    assert 8.4 < report["bits_per_weight"] < 8.6
    assert 0 < report["peak_rss_anon_bytes"] < 512 << 20
    assert len(report["tensors"]) == len(quire.json("inspect", out / "m.quire")["tensors"])


def test_dry_run_writes_nothing(quire, out):
    text = quire("convert", EMBEDDED, out / "m.quire", "--dry-run")
    assert "layers.0.wq" in text and list(out.iterdir()) == []


def test_the_same_file_whatever_the_threads_and_the_budget(quire, out, model):
    quire("convert", EMBEDDED, out / "a.quire", "--threads", "1", "--memory-budget", "8MiB")
    quire("convert", EMBEDDED, out / "b.quire", "--threads", "5")
    assert (out / "a.quire").read_bytes() == (out / "b.quire").read_bytes() == model.read_bytes()


def test_quantize_from_sixteen_bits_gives_the_file_that_convert_gives(quire, out, model):
    quire("convert", EMBEDDED, out / "f16.quire", "--type", "f16")
    quire("quantize", out / "f16.quire", out / "q4.quire", "--type", "q4")
    a, b = (quire.json("inspect", f)["tensors"] for f in (out / "q4.quire", model))
    assert [(t["name"], t["type"], t["checksum"]) for t in a] == [(t["name"], t["type"], t["checksum"]) for t in b]


@pytest.mark.parametrize("kernels", ["scalar", "avx2", "avxvnni", "avx512vnni"])
def test_kernels_can_be_named(quire, model, kernels):
    done = quire.run("run", model, "-p", "It was", "-n", "8", "--json", env={"QUIRE_KERNELS": kernels})
    if done.returncode == 1:
        assert b"QUIRE_KERNELS" in done.stderr
        pytest.skip(f"this CPU has no {kernels}")
    assert json.loads(done.stdout)["tokens"] == quire.json("run", model, "-p", "It was", "-n", "8")["tokens"]


def test_export_reports_what_it_did(quire, model, out):
    text = quire("export", model, out / "m.gguf", "--format", "gguf")
    assert "f32 -> F32: " in text and " tensors, exact" in text and "note: GGUF has no type for q4" in text
    assert "q4 -> F16: " in text and " tensors, rounded, mean relative RMS error 0.0002" in text
    report = quire.json("export", model, out / "hf", "--format", "safetensors", "--threads", "1")
    assert report["bytes"] == sum(f.stat().st_size for f in (out / "hf").iterdir())
    assert 0 < report["peak_rss_anon_bytes"] < 16 << 20 and len(report["tensors"]) == 57
    assert {t["type"] for t in report["tensors"]} == {"F16", "F32"}


def test_the_same_export_whatever_the_threads(quire, model, out):
    for threads in ("1", "5"):
        quire("export", model, out / f"{threads}.gguf", "--format", "gguf", "--threads", threads)
    assert (out / "1.gguf").read_bytes() == (out / "5.gguf").read_bytes()


def test_export_replaces_only_what_it_may(quire, model, out):
    target = out / "m.gguf"
    target.write_bytes(b"precious")
    fails(quire, "export", model, target, "--format", "gguf", words=["--force"])
    assert target.read_bytes() == b"precious"
    quire("export", model, target, "--format", "gguf", "--force")
    folder = out / "hf"
    quire("export", model, folder, "--format", "safetensors")
    fails(quire, "export", model, folder, "--format", "safetensors", words=["--force"])
    quire("export", model, str(folder) + "/", "--format", "safetensors", "--force")
    (folder / "notes.txt").write_text("mine")
    fails(quire, "export", model, folder, "--format", "safetensors", "--force", words=["notes.txt"])
    fails(quire, "export", model, target, "--format", "safetensors", "--force", words=["not a folder"])
    assert (folder / "notes.txt").read_text() == "mine" and sorted(p.name for p in out.iterdir()) == ["hf", "m.gguf"]


def test_exports_that_fail_leave_nothing(quire, model, out, tmp_path):
    damaged = tmp_path / "damaged.quire"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for kind in ("gguf", "safetensors"):
        fails(quire, "export", damaged, out / "x", "--format", kind, words=["checksum"], left=out)
    fails(quire, "export", model, out / "x", "--format", "compressed-tensors", words=["q4_0"], left=out)
    fails(quire, "export", model, out / "x", "--format", "onnx", code=2, words=["onnx", "gguf"], left=out)
    fails(quire, "export", model, out / "absent" / "x", "--format", "safetensors", words=["absent"], left=out)
    fails(quire, "export", model, model, "--format", "gguf", "--force", words=["is the input itself"])
    assert quire.run("export", model, out / "x").returncode == 2


# What must fail, and how.

def test_usage_errors_exit_with_2(quire, model):
    for args in ([], ["dance"], ["convert"], ["convert", "a"], ["run", model, "--what"], ["run", model, "-n", "x"],
                 ["convert", "a", "b", "--memory-budget", "12XB"]):
        assert quire.run(*args).returncode == 2


def test_what_is_asked_for_wrongly_is_a_usage_error_of_every_verb(quire, model, out):
    """The same flag, the same answer, whether or not the files are any good."""
    verbs = {"convert": ["convert", EMBEDDED, out / "x.quire"], "quantize": ["quantize", model, out / "x.quire", "--type", "q4"],
             "run": ["run", model, "-p", "x"], "bench": ["bench", model], "perplexity": ["perplexity", model, "-f", model],
             "footprint": ["footprint", model]}
    wrong = {("--threads", "0"): "--threads is 0, wanted 1 to 1024", ("--threads", "1025"): "--threads is 1025, wanted 1 to 1024",
             ("--threads", "x"): "not a whole number"}
    for verb, args in verbs.items():
        for flags, words in wrong.items():
            assert words in fails(quire, *args, *flags, code=2), (verb, flags)
    for verb in ("run", "perplexity", "footprint"):
        assert "--ctx is 0, wanted 1 or more" in fails(quire, *verbs[verb], "--ctx", "0", code=2)
    for verb in ("convert", "quantize"):
        assert "--memory-budget is 8191KiB, wanted 8MiB or more" in fails(quire, *verbs[verb], "--memory-budget", "8191KiB", code=2)
        for bits in ("0", "3.9", "9.1", "1e300", "nan", "inf"):
            assert f"--target-bits is {bits}, wanted 4 to 9" in fails(quire, *verbs[verb], "--target-bits", bits, code=2)
        assert 'unknown type "q9"' in fails(quire, *verbs[verb], "--type", "q9", code=2)
    assert ", source" in fails(quire, *verbs["convert"], "--type", "q9", code=2)
    for kind in ("source", "q8"):
        assert "--target-bits goes with" in fails(quire, *verbs["convert"], "--type", kind, "--target-bits", "5", code=2)
    assert "--keep" in fails(quire, *verbs["quantize"], "--keep", "wq", code=2)
    assert list(out.iterdir()) == []


def test_help_lists_what_is_for_users(quire):
    assert "--worker" not in quire("bench", "--help") and "--processes" in quire("bench", "--help")


def test_footprint_says_where_the_context_ends_it(quire, model):
    done = quire.run("footprint", model, "--tokens", "100", "--ctx", "16", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["tokens"] < 16
    assert f"{found['tokens']} tokens, not 100: the context of 16 is full" in done.stderr.decode()


def test_saved_predictions_replace_a_file_only_with_force(quire, model, out, tmp_path):
    (tmp_path / "text").write_text("It was a truth universally acknowledged. " * 20)
    args = ["perplexity", model, "-f", tmp_path / "text", "--ctx", "32", "--chunks", "1", "--save-logits", out / "l"]
    quire(*args)
    first = (out / "l").read_bytes()
    fails(quire, *args, words=["exists", "--force"])
    (out / "l").write_bytes(b"other")
    quire(*args, "--force")
    assert (out / "l").read_bytes() == first and [path.name for path in out.iterdir()] == ["l"]


def test_missing_source(quire, out):
    fails(quire, "convert", out / "absent", out / "m.quire", words=["absent", "No such file"], left=out)


def test_cut_checkpoint(quire, checkpoint, out):
    file = checkpoint / "pytorch_model.bin"
    with open(file, "r+b") as f:
        f.truncate(file.stat().st_size // 2)
    fails(quire, "convert", checkpoint, out / "m.quire", words=["pytorch_model.bin"], left=out)


def test_flipped_weight(quire, checkpoint, out):
    file = checkpoint / "pytorch_model.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    fails(quire, "convert", checkpoint, out / "m.quire", words=["CRC-32"], left=out)


@pytest.mark.parametrize("content, word", [
    (b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    (b"<!DOCTYPE html><html>", "HTML"), (b"garbage" * 100, "pytorch_model.bin"), (b"\x80\x02}q\x00.", "pytorch_model.bin")])
def test_wrong_magic(quire, checkpoint, out, content, word):
    (checkpoint / "pytorch_model.bin").write_bytes(content)
    fails(quire, "convert", checkpoint, out / "m.quire", words=[word], left=out)


def test_unsupported_architecture(quire, checkpoint, out):
    edit_config(checkpoint, architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox")
    fails(quire, "convert", checkpoint, out / "m.quire", words=["gpt_neox", "llama", "qwen2"], left=out)


def test_missing_shard(quire, checkpoint, out):
    (checkpoint / "pytorch_model.bin").rename(checkpoint / "pytorch_model-00001-of-00002.bin")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model-00001-of-00002.bin",
                                            "lm_head.weight": "pytorch_model-00002-of-00002.bin"}}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    fails(quire, "convert", checkpoint, out / "m.quire", words=["pytorch_model-00002-of-00002.bin"], left=out)


def test_missing_tokenizer(quire, checkpoint, out):
    (checkpoint / "tokenizer.model").unlink()
    fails(quire, "convert", checkpoint, out / "m.quire", words=["tokenizer"], left=out)


def test_shape_that_contradicts_the_config(quire, checkpoint, out):
    edit_config(checkpoint, intermediate_size=123)
    fails(quire, "convert", checkpoint, out / "m.quire", words=["123"], left=out)


def test_malicious_pickle(quire, checkpoint, out, tmp_path):
    import torch

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    torch.save({"model.norm.weight": Attack()}, checkpoint / "pytorch_model.bin")
    fails(quire, "convert", checkpoint, out / "m.quire", words=["system"], left=out)
    assert not (tmp_path / "owned").exists()


def test_existing_output_is_kept_without_force(quire, out):
    target = out / "m.quire"
    target.write_bytes(b"precious")
    fails(quire, "convert", EMBEDDED, target, words=["--force"])
    assert target.read_bytes() == b"precious"
    quire("convert", EMBEDDED, target, "--force")
    quire("verify", target)


def test_an_output_that_is_one_of_the_inputs(quire, checkpoint):
    before = (checkpoint / "pytorch_model.bin").read_bytes()
    fails(quire, "convert", checkpoint, checkpoint / "pytorch_model.bin", "--force", words=["is the input itself"])
    assert (checkpoint / "pytorch_model.bin").read_bytes() == before


def test_a_tokenizer_that_no_run_could_use(quire, checkpoint, out):
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1025))}))
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["vocab_size"] >= 1025
    fails(quire, "convert", checkpoint, out / "m.quire", words=["1025 eos ids", "--tokenizer none"], left=out)


def test_a_token_without_a_row_of_the_embedding(quire, tmp_path, out):
    """As fine-tuning leaves it that adds <pad>, and does not resize the embedding."""
    folder = tmp_path / "tiny"
    make_checkpoint(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    added = {"content": "<pad>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"].append({**added, "id": 258})
    path.write_text(json.dumps(tokenizer))
    assert "<pad> (a token without a row of the embedding)" in quire("convert", folder, out / "m.quire", "--dry-run")
    quire("convert", folder, out / "m.quire")
    assert len(quire.json("run", out / "m.quire", "-p", "aa<pad>", "-n", "2", "--ignore-eos")["tokens"]) == 2
    tokenizer["model"]["vocab"]["a third"] = 258
    path.write_text(json.dumps({**tokenizer, "added_tokens": []}))
    (out / "m.quire").unlink()
    fails(quire, "convert", folder, out / "m.quire", words=[str(folder), "259 pieces", "258 rows"], left=out)


def test_many_views_of_one_number(quire, tmp_path, out):
    """A file of kilobytes that says it is a model of gigabytes."""
    import torch

    folder = tmp_path / "wide"
    make_checkpoint(folder, layers=8)
    config = json.loads((folder / "config.json").read_text())
    wide = {"hidden_size": 2048, "intermediate_size": 30000, "head_dim": 1024}
    (folder / "config.json").write_text(json.dumps({**config, **wide}))
    sizes = {32: 2048, 48: 30000, 16: 1024, 258: 258}
    one = torch.ones(1)
    state = {name: one.expand(*(sizes[n] for n in tensor.shape)) for name, tensor in torch.load(folder / "pytorch_model.bin").items()}
    torch.save(state, folder / "pytorch_model.bin")
    assert (folder / "pytorch_model.bin").stat().st_size < 100_000
    fails(quire, "convert", folder, out / "m.quire", words=[str(folder), "its tensors hold", "16 times"], left=out)


def test_a_chat_template_that_is_not_utf8(quire, checkpoint, out):
    (checkpoint / "chat_template.jinja").write_bytes(b"caf\xe9 {{ x }}")
    fails(quire, "convert", checkpoint, out / "m.quire", words=["chat_template.jinja", "byte 3 is not UTF-8"], left=out)


def test_a_file_name_that_is_not_utf8(quire, checkpoint, out):
    folder = os.fsencode(checkpoint)
    os.rename(folder + b"/pytorch_model.bin", folder + b"/m\xff.bin")
    quire("convert", os.fsdecode(folder + b"/m\xff.bin"), out / "m.quire")
    quire("verify", out / "m.quire")


def test_tokenizer_and_config_in_a_cache_of_links(quire, checkpoint, out, tmp_path):
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "r"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("tokenizer.model", "tokenizer_config.json", "config.json"):
        (checkpoint / name).rename(blobs / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    quire("convert", checkpoint / "pytorch_model.bin", out / "m.quire", "--tokenizer", snapshot / "tokenizer.model",
          "--config", snapshot / "config.json")


def test_a_tiny_temperature_is_greedy(quire, model):
    want = quire.json("run", model, "-p", "It was", "-n", "8")["tokens"]
    for temperature in ("1e-7", "1e-37", "1e-42"):
        assert quire.json("run", model, "-p", "It was", "-n", "8", "--temp", temperature, "--top-p", "0.9")["tokens"] == want


def test_an_output_that_is_a_folder_or_nothing(quire, out):
    for target in (out, ""):
        fails(quire, "convert", EMBEDDED, target, "--force", words=["not the name of a file"], left=out)


def test_footprint_page_does_not_replace_the_model(quire, model, out):
    copy = out / "m.quire"
    shutil.copy(model, copy)
    fails(quire, "footprint", copy, "--tokens", "1", "--html", copy, "--force", words=["is the input itself"])
    fails(quire, "footprint", model, "--tokens", "1", "--html", copy, words=["--force"])
    assert copy.read_bytes() == model.read_bytes()


def test_standard_output_that_cannot_be_written(quire, model):
    for args in (["inspect", model], ["verify", model], ["run", model, "-p", "x", "-n", "1"], ["--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([quire.path, *map(str, args)], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1 or args == ["--help"], args


def test_a_failed_conversion_keeps_the_old_output(quire, checkpoint, out, model):
    target = out / "m.quire"
    shutil.copy(model, target)
    data = bytearray((checkpoint / "pytorch_model.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoint / "pytorch_model.bin").write_bytes(data)
    fails(quire, "convert", checkpoint, target, "--force", words=["CRC-32"])
    assert target.read_bytes() == model.read_bytes() and list(out.iterdir()) == [target]


def test_no_space_by_limit(quire, out):
    done = subprocess.run([quire.path, "convert", EMBEDDED, out / "m.quire"], capture_output=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"m.quire" in done.stderr, done.stderr
    assert list(out.iterdir()) == []


def test_no_space_on_a_full_disk(quire, out):
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", out]).returncode != 0:
        pytest.skip("mounting a small disk wants root")
    try:
        fails(quire, "convert", EMBEDDED, out / "m.quire", words=["No space left"], left=out)
    finally:
        subprocess.run(["umount", out], check=True)


def test_terminated_conversion_leaves_nothing(quire, out):
    process = subprocess.Popen([quire.path, "convert", EMBEDDED, out / "m.quire", "--threads", "1"])
    time.sleep(0.03)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(quire("verify", path) for path in out.iterdir())


def test_damaged_model_file(quire, model, out):
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    (out / "flipped.quire").write_bytes(data)
    fails(quire, "verify", out / "flipped.quire", words=["checksum"])
    (out / "cut.quire").write_bytes(data[: len(data) // 2])
    fails(quire, "run", out / "cut.quire", "-p", "x", words=["cut"])
    fails(quire, "run", EMBEDDED / "pytorch_model.bin", "-p", "x", words=["not a .quire file"])


def test_prompt_over_the_context(quire, model):
    fails(quire, "run", model, "-p", "word " * 2000, "--ctx", "64", words=["64"])


def test_unknown_kernels(quire, model):
    done = quire.run("run", model, "-p", "x", env={"QUIRE_KERNELS": "sse9"})
    assert done.returncode == 1 and b"sse9" in done.stderr


def test_truncated_while_running(quire, model, out):
    copy = out / "m.quire"
    shutil.copy(model, copy)
    process = subprocess.Popen([quire.path, "run", copy, "-p", "It was", "-n", "400", "--ctx", "512", "--ignore-eos", "--threads", "1"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "QUIRE_KERNELS": "scalar"})
    process.stdout.read(1)  # it runs
    os.truncate(copy, 4096)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, (process.returncode, stderr)
    assert stderr.count(b"\n") == 1 and b"m.quire" in stderr, stderr
