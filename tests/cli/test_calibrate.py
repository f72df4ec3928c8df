"""Quantizing with calibration: better than without, the same after a kill, refused where it cannot be."""
import pathlib
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EMBEDDED = ROOT / "tests" / "testdata" / "embedded"


@pytest.fixture(scope="module")
def source(quire, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibrate") / "f16.quire"
    quire("convert", EMBEDDED, path, "--type", "f16")
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some 6000 tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((ROOT / "quantize" / "calibration_text.txt").read_text()[:24000])
    return path


def test_lowers_the_divergence_on_another_text(quire, source, tmp_path):
    held_out = ROOT / "LICENSE"  # some 5000 tokens that never change
    base, squares, moments = tmp_path / "base.logits", tmp_path / "squares", tmp_path / "moments"
    quire("perplexity", source, "-f", held_out, "--save-logits", base)
    quire("calibrate", source, "-o", squares)
    quire("calibrate", source, "-o", moments, "--hessians")
    kld = {}
    for name, flags in {"plain": (), "calibrate": ("--calibrate",), "squares": ("--calibration", squares),
                        "moments": ("--calibration", moments)}.items():
        model = tmp_path / f"{name}.quire"
        quire("quantize", source, model, "--type", "q4", *flags)
        quire("verify", model)
        kld[name] = quire.json("perplexity", model, "-f", held_out, "--kl-base", base)["mean_kld"]
    assert kld["calibrate"] < 0.65 * kld["plain"], kld
    assert kld["moments"] < 0.65 * kld["plain"], kld
    assert kld["squares"] < kld["plain"], kld


def test_convert_takes_a_calibration_file_too(quire, text, tmp_path):
    source, calibration = tmp_path / "source.quire", tmp_path / "calibration"
    quire("convert", EMBEDDED, source, "--type", "source")
    quire("calibrate", source, "-f", text, "-o", calibration, "--hessians")
    one, two = tmp_path / "one.quire", tmp_path / "two.quire"
    quire("convert", EMBEDDED, one, "--type", "q4", "--calibration", calibration)
    quire("quantize", source, two, "--type", "q4", "--calibration", calibration)
    sums = [[(t["name"], t["type"], t["checksum"]) for t in quire.json("inspect", path, "--tensors")["tensors"]] for path in (one, two)]
    assert sums[0] == sums[1]
    plain = tmp_path / "plain.quire"
    quire("convert", EMBEDDED, plain, "--type", "q4")
    assert [t["checksum"] for t in quire.json("inspect", plain, "--tensors")["tensors"]] != [checksum for _, _, checksum in sums[0]]


def test_a_damaged_calibration_file_is_refused(quire, source, text, tmp_path):
    calibration = tmp_path / "calibration"
    quire("calibrate", source, "-f", text, "-o", calibration, "--chunks", "1")
    whole = calibration.read_bytes()
    for damaged in (whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], b"\x89QUIRE\r\n" + whole[8:], b""):
        calibration.write_bytes(damaged)
        for verb, file in (("quantize", source), ("convert", EMBEDDED)):
            done = quire.run(verb, file, tmp_path / "out.quire", "--type", "q4", "--calibration", calibration)
            assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and str(calibration).encode() in done.stderr, done.stderr
            assert not (tmp_path / "out.quire").exists()


def test_bytes_do_not_depend_on_threads(quire, source, text, tmp_path):
    files = []
    for threads in (1, 2, 3):
        files.append(tmp_path / f"{threads}.quire")
        quire("quantize", source, files[-1], "--type", "q4", "--calibrate", "-f", text, "--threads", threads)
    first = files[0].read_bytes()
    assert all(file.read_bytes() == first for file in files)


def test_a_killed_run_is_taken_up_again(quire, source, text, tmp_path):
    flags = ("--type", "q4_hq", "--calibrate", "-f", text)
    whole = tmp_path / "whole.quire"
    quire("quantize", source, whole, *flags)
    output, unfinished = tmp_path / "out" / "m.quire", tmp_path / "out" / "m.quire.unfinished"
    output.parent.mkdir()
    layers = -1
    for kills in range(3):  # each after one layer more
        running = subprocess.Popen([quire.path, "quantize", source, output, *map(str, flags)])
        while running.poll() is None:
            done = layers_done(unfinished)
            if done > max(layers, 0):
                break
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        running.wait()
        if not unfinished.exists():
            break
        assert not output.exists()
        assert layers_done(unfinished) > layers, "the work of the run before was lost"
        layers = layers_done(unfinished)
    assert layers > 0, "it was never stopped on its way"
    if not output.exists():
        quire("quantize", source, output, *flags)
    assert output.read_bytes() == whole.read_bytes()
    assert list(output.parent.iterdir()) == [output], "something was left behind"


def layers_done(unfinished):
    """The count in the header of the file of unfinished work."""
    if not unfinished.exists():
        return -1
    with open(unfinished, "rb") as file:
        header = file.read(64)
    return int.from_bytes(header[40:48], "little") if len(header) == 64 else -1


def test_unfinished_work_of_other_settings_is_neither_used_nor_lost(quire, source, text, tmp_path):
    output, other = tmp_path / "m.quire", tmp_path / "other.quire"
    running = subprocess.Popen([quire.path, "quantize", source, output, "--type", "q4", "--calibrate", "-f", text])
    while running.poll() is None and layers_done(tmp_path / "m.quire.unfinished") < 1:
        time.sleep(0.002)
    running.kill()
    running.wait()
    flags = ("--type", "q4_hq", "--calibrate", "-f", text)
    refused = quire.run("quantize", source, output, *flags)
    assert refused.returncode == 1 and b"m.quire.unfinished: holds" in refused.stderr and b"--force" in refused.stderr, refused.stderr
    quire("quantize", source, output, *flags, "--force")
    quire("quantize", source, other, *flags)
    assert output.read_bytes() == other.read_bytes()


def test_refusals(quire, source, text, tmp_path):
    def fails(*args, code=1, words=()):
        done = quire.run("quantize", source, tmp_path / "out.quire", "--type", "q4", *args)
        message = done.stderr.decode()
        assert done.returncode == code, message
        assert all(word in message for word in words), message
        assert not list(tmp_path.glob("out.quire*")), "something was left behind"

    fails("-f", text, code=2, words=["--calibrate"])
    short = tmp_path / "short.txt"
    short.write_text("Too short to learn from.")
    fails("--calibrate", "-f", short, words=["tokens, wanted are 512 or more"])
    fails("--calibrate", "-f", tmp_path / "none.txt", words=["none.txt", "No such file"])
    (tmp_path / "out.quire").write_text("kept")
    done = quire.run("quantize", source, tmp_path / "out.quire", "--type", "q4", "--calibrate")
    assert done.returncode == 1 and b"--force" in done.stderr
    assert (tmp_path / "out.quire").read_text() == "kept"
    assert not (tmp_path / "out.quire.unfinished").exists()
    (tmp_path / "out.quire").unlink()


def test_too_little_memory_says_how_much(quire, source, text, tmp_path):
    done = quire.run("quantize", source, tmp_path / "m.quire", "--type", "q4", "--calibrate", "-f", text,
                     "--memory-budget", "1MiB")
    assert done.returncode == 2 and b"--memory-budget is 1MiB, wanted 8MiB or more" in done.stderr
    assert not list(tmp_path.glob("m.quire*")), "something was left behind"


def test_damaged_weights_leave_no_trace_in_what_follows(quire, source, text, tmp_path):
    """Damage found on the way must not live on in the layers that are kept for the next run."""
    flags = ("--type", "q4", "--calibrate", "-f", text)
    clean, model, output = tmp_path / "clean.quire", tmp_path / "f16.quire", tmp_path / "m.quire"
    quire("quantize", source, clean, *flags)
    whole = source.read_bytes()
    offsets = {t["name"]: t["offset"] for t in quire.json("inspect", source, "--tensors")["tensors"]}
    for name, kept in (("layers.0.w_down", False), ("layers.2.w_down", True)):
        at = offsets[name] + 1000
        model.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1:])
        done = quire.run("quantize", model, output, *flags)
        assert done.returncode == 1 and name.encode() in done.stderr and b"damaged" in done.stderr, done.stderr
        assert not output.exists()
        assert (tmp_path / "m.quire.unfinished").exists() == kept
        model.write_bytes(whole)
        quire("quantize", model, output, *flags, "--force")
        assert output.read_bytes() == clean.read_bytes()
        output.unlink()
