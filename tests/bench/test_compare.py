"""The comparison with llama.cpp: its files hold the same weights, its report shows what was measured."""
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "footprint")]

import bar_chart  # noqa: E402
import checkpoint_to_gguf  # noqa: E402
import compare_report  # noqa: E402
import shapes  # noqa: E402


def test_both_files_hold_the_same_weights(quire, tmp_path):
    folder = shapes.write_checkpoint(tmp_path / "checkpoint", "long")
    checkpoint_to_gguf.write_gguf(folder, tmp_path / "bf16.gguf")
    checksums = []
    for source in (folder, tmp_path / "bf16.gguf"):
        quire("convert", source, tmp_path / "m.quire", "--type", "bf16", "--tokenizer", "none", "--force")
        checksums.append({t["name"]: t["checksum"] for t in json.loads(quire("inspect", tmp_path / "m.quire", "--tensors", "--json"))["tensors"]})
    assert checksums[0] == checksums[1] and len(checksums[0]) > 30


def sample(side, **figures):
    limits = {"read_bytes_per_second": 50e9, "ops_per_second": 2e12}
    return {"side": side, "before": limits, "after": limits, "ready_ms": 1, "rss_anon_bytes": 1e8, "rss_file_bytes": 4e9, **figures}


def test_the_report_says_what_was_missed(tmp_path):
    class Side:
        def __init__(self, label, file):
            self.label, self.file, self.is_quire = label, file, file.endswith(".quire")

    class Args:
        work, threads, report = tmp_path, 2, tmp_path / "plot.svg"

    sides = {"quire-q4": Side("Quire <q4>", "q4.quire"), "llama-q4_0": Side("llama.cpp", "q4_0.gguf")}
    for side in sides.values():
        (tmp_path / side.file).write_bytes(b"x")
    of_quire = dict(decode_bytes_per_token=4e9, prefill_ops_per_token=1e10, kv_cache_bytes=2e8, memory_read_bytes_per_second=5e10)
    results = {"made": {"convert": 12.3}, "samples": [
        sample("quire-q4", first_token_ms=300, decode_tokens_per_second=d, prefill_tokens_per_second=120, **of_quire) for d in (10, 12, 11)
    ] + [sample("llama-q4_0", first_token_ms=3300, decode_tokens_per_second=10, prefill_tokens_per_second=40)]}
    text = compare_report.write(Args, sides, results)
    assert "| decode, tokens/s | 11.00 (10.00 to 12.00) | 10.00 |" in text  # medians and ranges
    assert "| ... of the read bandwidth, % | 88 (80 to 96) |  |" in text  # 11 x 4e9 / 50e9
    assert "| decode, of the read bandwidth, measured in turns with it | >= 0.90 | 0.88 | missed |" in text
    assert "| decode, beside llama.cpp Q4_0 | >= 1.20x | 1.10x | missed |" in text
    assert "| ... llama.cpp's default takes | >= 10.00x | 11.00x | met |" in text
    assert "| prefill, beside llama.cpp Q4_0 | >= 2.30x | 3.00x | met |" in text
    svg = ElementTree.parse(Args.report).getroot()
    assert len(svg.findall(".//{*}rect")) == 2 * 3 + 2 * 2  # one for each bar, two where memory is split
    assert "Quire <q4>" in [element.text for element in svg.iter()]


def test_bars_are_as_long_as_their_values(tmp_path):
    bar_chart.write_svg(tmp_path / "a.svg", "t", [("p", [("a", "quire", [3.0], None, None), ("b", "llama.cpp", [1.0, 0.5], None, None)], "s")])
    widths = [float(rect.get("width")) for rect in ElementTree.parse(tmp_path / "a.svg").getroot().findall(".//{*}rect")]
    assert widths[1] == pytest.approx(widths[0] / 3, abs=0.2) and widths[2] == pytest.approx(widths[0] / 6, abs=0.2)


def test_one_round_with_llama_cpp(quire, tmp_path):
    pytest.importorskip("llama_cpp")
    subprocess.run([sys.executable, HERE / "compare_llama_cpp.py", "--quire", quire.path, "--work", tmp_path, "--shape", "long", "--rounds", "1",
                    "--only", "quire-q4,llama-q4_0", "--tokens", "8", "--prefill-tokens", "32", "--report", tmp_path / "plot.svg"],
                   check=True, capture_output=True, timeout=280)
    samples = {sample["side"]: sample for sample in json.loads((tmp_path / "results.json").read_text())["samples"]}
    assert set(samples) == {"quire-q4", "llama-q4_0"}
    for figures in samples.values():
        assert figures["decode_tokens_per_second"] > 0 and figures["prefill_tokens_per_second"] > 0
        assert figures["first_token_ms"] >= figures["ready_ms"] > 0 and figures["cold_first_token_ms"] > 0
        assert figures["rss_anon_bytes"] > 0 and figures["plain_read_ms"] > 0
    assert (tmp_path / "report.md").read_text().startswith("Medians of 1 rounds")
    ElementTree.parse(tmp_path / "plot.svg")
