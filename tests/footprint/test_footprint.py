"""Every claim about memory, on models in real shapes. Most are checked from outside of the process (observe.py)."""
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from quire_reader import QuireFile

import observe

MIB = 1 << 20
# What a process takes beyond its KV cache and scratch memory, as README.md and docs/memory.md state it: heap, stacks, the program's
# data; and its tokenizer.
CONSTANT, PER_PIECE = 2 * MIB, 128
BIG = os.environ.get("QUIRE_TEST_7B")  # set: also a whole 7B model, which takes minutes and 6 GB of disk


SHAPES = ["embedded", "160m", "1b"] + (["7b"] if BIG else [])


@functools.lru_cache(None)
def about(path):
    """By the independent reader: configuration, names of the tensors, offset of the first, whether there is a tokenizer, offset
    of the first layer."""
    f = QuireFile(path)
    return f.config, list(f.tensors), min(t.offset for t in f.tensors.values()), hasattr(f, "tokenizer"), f.tensors["layers.0.wq"].offset


def config_of(path):
    return about(path)[0]


def other_bytes(path):
    return CONSTANT + (PER_PIECE * config_of(path)["vocab_size"] if about(path)[3] else 0)


def kv_bytes(path, ctx):
    c = config_of(path)
    return 2 * 2 * c["n_layers"] * c["n_kv_heads"] * -(-c["head_dim"] // 16) * 16 * -(-ctx // 128) * 128


def footprint(quire, path, *args, **kwargs):
    return quire.json("footprint", path, *args, **kwargs)


def supported_kernels(quire, path):
    names = [k for k in ("scalar", "avx2", "avx512vnni", "amx", "neon")
             if quire.run("footprint", path, "--tokens", 1, env={"QUIRE_KERNELS": k}).returncode == 0]
    assert "scalar" in names
    return names


@pytest.mark.parametrize("shape", SHAPES)
def test_opening_reads_no_weight(quire, models, shape):
    path = models(shape)
    if not observe.drop_from_page_cache(path):
        pytest.skip("this file system cannot drop a file from the page cache")
    report = footprint(quire, path, "--tokens", 1)
    stages = {s["name"]: s for s in report["stages"]}
    manifest = -(-about(path)[2] // observe.PAGE) * observe.PAGE
    assert 0 < stages["open"]["resident_file_bytes"] <= manifest
    assert stages["open"]["rss_weights_bytes"] == 0
    assert stages["first token"]["resident_file_bytes"] >= report["touched_per_token_bytes"]

    assert observe.drop_from_page_cache(path)
    quire("inspect", path)
    assert not any(observe.resident_pages(path)[about(path)[4] // observe.PAGE:])  # not a page of any layer


@pytest.mark.parametrize("shape, every_kernel", [("embedded", True), ("160m", False)])
def test_weights_are_never_private(quire, models, shape, every_kernel):
    path = models(shape)
    for kernels in supported_kernels(quire, path) if every_kernel else [""]:
        mapped = []  # bytes, at each look
        with observe.Process(quire, "footprint", path, "--tokens", 60, "--threads", 1, "--json", env={"QUIRE_KERNELS": kernels} if kernels else None) as process:
            while process.child.poll() is None:
                for permissions, counts in process.look(lambda pid: observe.mappings(pid, path)) or []:
                    assert permissions in ("r--s", "---s"), kernels  # without rights for a moment, while touches are counted
                    for kind in ("Anonymous", "Private_Dirty", "Shared_Dirty", "Swap"):
                        assert counts.get(kind, 0) == 0, (kernels, kind)
                    mapped.append(counts["Rss"])
            output, error = process.child.communicate()
            assert process.child.returncode == 0, error
        assert len(mapped) > 3 and max(mapped) > 0.5 * path.stat().st_size, kernels
        for stage in json.loads(output)["stages"]:
            assert stage["weights_anon_bytes"] == stage["weights_private_dirty_bytes"] == 0, (kernels, stage["name"])


@pytest.mark.parametrize("shape", SHAPES)
def test_anonymous_memory_is_kv_cache_scratch_and_a_constant(quire, models, shape):
    path = models(shape)
    with observe.Process(quire, "footprint", path, "--tokens", 20, "--json") as process:
        peak = process.peak_anonymous()
        report = json.loads(process.child.stdout.read())
    assert 0 < peak <= report["kv_cache_bytes"] + report["scratch_bytes"] + other_bytes(path)
    ledger = report["ledger"]
    assert ledger["other_anon_bytes"] <= other_bytes(path)
    assert ledger["kv_cache_resident_bytes"] <= report["kv_cache_bytes"] + observe.PAGE
    assert ledger["scratch_resident_bytes"] <= report["scratch_bytes"] + observe.PAGE


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ledger_adds_up(quire, models, shape):
    path = models(shape)
    report = footprint(quire, path, "--tokens", 4)
    assert report["file_bytes"] == report["mapped_bytes"] == path.stat().st_size
    for ledger in [report["ledger"], *report["stages"]]:
        assert ledger["rss_bytes"] == ledger["rss_anon_bytes"] + ledger["rss_weights_bytes"] + ledger["rss_other_files_bytes"]
        assert ledger["rss_anon_bytes"] == sum(ledger[k] for k in ("kv_cache_resident_bytes", "scratch_resident_bytes", "stream_buffer_resident_bytes", "other_anon_bytes"))
        assert ledger["other_anon_bytes"] > 0
        assert ledger["pss_bytes"] <= ledger["rss_bytes"]
    # Page by page, against mincore called from here.
    assert report["resident_file_bytes"] == sum(observe.resident_pages(path)) * observe.PAGE
    assert report["resident_file_bytes"] == sum(t["resident_bytes"] for t in report["tensors"]) + report["outside_tensors_resident_bytes"]
    assert report["touched_per_token_bytes"] == sum(t["touched_bytes"] for t in report["tensors"])
    assert [t["name"] for t in report["tensors"]] == about(path)[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_reads_the_layers_and_one_row_of_the_embedding(quire, models, shape):
    path = models(shape)
    report = footprint(quire, path, "--tokens", 4)
    layers = [t for t in report["tensors"] if t["name"].startswith("layers.")]
    assert sum(t["touched_bytes"] for t in layers) >= 0.99 * sum(t["bytes"] for t in layers)
    by_name = {t["name"]: t for t in report["tensors"]}
    if "output" in by_name:
        assert by_name["output"]["touched_bytes"] == by_name["output"]["bytes"]
        row_bytes = by_name["embedding"]["bytes"] / config_of(path)["vocab_size"]
        assert 0 < by_name["embedding"]["touched_bytes"] <= row_bytes + 2 * observe.PAGE
    else:  # tied: the output matrix is the embedding
        assert by_name["embedding"]["touched_bytes"] == by_name["embedding"]["bytes"]
    assert all(t["touched_bytes"] <= t["resident_bytes"] for t in report["tensors"])


@pytest.mark.parametrize("shape, ctx", [("embedded", 256), ("160m", 300), ("1b", 2048)])
def test_kv_cache_is_what_the_formula_says(quire, models, shape, ctx):
    path = models(shape)
    report = footprint(quire, path, "--tokens", 2, "--ctx", ctx)
    assert report["kv_cache_bytes"] == kv_bytes(path, ctx)
    assert report["ledger"]["kv_cache_resident_bytes"] < report["kv_cache_bytes"]  # grows with use


def test_memory_does_not_grow_over_2000_tokens(quire, models):
    path, tokens = models("long"), 2000
    with observe.Process(quire, "footprint", path, "--tokens", tokens, "--ctx", 2048, "--threads", 1, "--json") as process:
        output, error = process.child.communicate()
        assert process.child.returncode == 0, error
    report = json.loads(output)
    assert report["tokens"] == tokens
    stages = {s["name"]: s for s in report["stages"]}
    first, last = stages["first token"], stages["steady state"]
    # Nothing but keys and values: all of them are there now, and nothing else has grown.
    assert last["kv_cache_resident_bytes"] >= 0.95 * kv_bytes(path, tokens)
    assert last["other_anon_bytes"] - first["other_anon_bytes"] <= MIB // 4
    assert last["scratch_resident_bytes"] - first["scratch_resident_bytes"] <= MIB // 4


@pytest.mark.parametrize("shape", ["160m"] + (["7b"] if BIG else []))
def test_many_processes_share_one_copy(quire, models, shape, tmp_path):
    path = models(shape)
    other = path.with_suffix(".hardlink")
    if not other.exists():
        os.link(path, other)
    n, size = 4, path.stat().st_size
    alone = footprint(quire, path, "--tokens", 1)
    read = alone["touched_per_token_bytes"]
    processes = [observe.Process(quire, "footprint", path if i % 2 else other, "--tokens", 500, "--threads", 1) for i in range(n)]
    try:
        for process in processes:
            process.wait_until(lambda pid: sum(c["Rss"] for _, c in observe.mappings(pid, path)) >= read)
        counts = [process.look(observe.rollup) for process in processes]
        weights = [sum(c["Pss"] for _, c in process.look(lambda pid: observe.mappings(pid, path))) for process in processes]
    finally:
        for process in processes:
            process.__exit__()
    total = sum(c["Pss"] for c in counts)
    own = kv_bytes(path, 512) + alone["scratch_bytes"] + CONSTANT
    assert 0.99 * read < sum(weights) <= size
    assert total <= size + n * own
    assert sum(c["Rss"] for c in counts) > n * read  # which is what adding up top's RES would give


@pytest.mark.parametrize("shape, budget", [("160m", 512), ("160m", 64), ("1b", 64)] + ([("7b", 512)] if BIG else []))
def test_convert_stays_within_its_memory_budget(quire, checkpoints, tmp_path, shape, budget):
    with observe.Process(quire, "convert", checkpoints(shape), tmp_path / "m.quire", "--tokenizer", "none",
                         "--memory-budget", f"{budget}MiB") as process:
        peak = process.peak_anonymous()
    assert 0 < peak <= budget * MIB
    QuireFile(tmp_path / "m.quire")


def test_quantize_stays_within_its_memory_budget(quire, checkpoints, tmp_path):
    quire("convert", checkpoints("160m"), tmp_path / "f16.quire", "--type", "f16", "--tokenizer", "none")
    with observe.Process(quire, "quantize", tmp_path / "f16.quire", tmp_path / "q4.quire", "--type", "q4", "--memory-budget", "64MiB") as process:
        peak = process.peak_anonymous()
    assert 0 < peak <= 64 * MIB


def test_the_page_opens_in_a_browser(quire, models, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    model = tmp_path / "<b>&amp;'\"model.quire"  # a name is text, not markup
    shutil.copy(models("embedded"), model)
    page = tmp_path / "page.html"
    quire("footprint", model, "--tokens", 8, "--html", page)
    text = page.read_text()
    assert not re.search(r"(https?:)?//[a-z]|<script|<link|url\(|@import", text)  # nothing from elsewhere

    def chromium(*args):
        done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,2600", *args, page.as_uri()],
                              capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    dom = chromium("--dump-dom")
    assert "<b>&amp;amp;" not in dom and "&lt;b&gt;&amp;amp;'\"model.quire</h1>" in dom
    assert len(re.findall(r"<svg", dom)) == 4 and not re.search(r"\b(nan|inf)\b", dom, re.IGNORECASE)
    for layer in range(config_of(models("embedded"))["n_layers"]):
        assert f">layer {layer}</text>" in dom
    for word in ("KV cache", "page cache", "docker stats" if "docker stats" in text else "free", "PSS"):
        assert word in dom
    chromium(f"--screenshot={tmp_path / 'page.png'}")
    pixels = {color: n for n, color in Image.open(tmp_path / "page.png").convert("RGB").getcolors(1 << 24)}
    # The two colours of the figures cover a good part of what is seen.
    assert pixels.get((47, 111, 159), 0) > 20000 and pixels.get((58, 157, 110), 0) > 5000
