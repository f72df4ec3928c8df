"""The N-th call of a function fails, for every N, in every verb with a tiny model.

Each run ends in what it would have done anyway, or with status 1, one line that says why, and no output. It never ends
by a signal, never hangs, never leaves a file that is not whole. By default every N of the system calls and a sample of
the allocations; QUIRE_ALL_FAULTS=1 tries every one.
"""
import concurrent.futures
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import tempfile

import pytest

from tiny_model import RESUMABLE, layers_done, tree

ALL = os.environ.get("QUIRE_ALL_FAULTS") == "1"
SAMPLE = 15  # of the places where one function can fail
TIMEOUT = 200  # seconds; a run takes 10 ms

# (function, effect, whether the work must be done all the same).
FAULTS = [
    ("open", "EIO", False), ("open", "EMFILE", False), ("open", "EACCES", False), ("open", "ENOSPC", False),
    ("open", "EINTR", True),
    ("read", "EIO", False), ("read", "EINTR", False), ("read", "short", True),
    ("pread", "EIO", False), ("pread", "EINTR", True), ("pread", "short", True), ("pread", "EAGAIN", False),
    ("write", "EIO", False), ("write", "ENOSPC", False),
    ("pwrite", "EIO", False), ("pwrite", "ENOSPC", False), ("pwrite", "EDQUOT", False), ("pwrite", "EINTR", True),
    ("pwrite", "short", True),
    ("fallocate", "ENOSPC", False), ("fallocate", "EOPNOTSUPP", False), ("fallocate", "EINTR", True),
    ("fsync", "EIO", False), ("fsync", "ENOSPC", False), ("fsync", "EINTR", True),
    ("close", "EIO", True), ("flock", "ENOLCK", True), ("flock", "EINTR", True),
    ("rename", "EXDEV", False), ("rename", "EACCES", False), ("rename", "EIO", False),
    ("mmap", "ENOMEM", False), ("mmap", "ENODEV", False), ("mmap", "EAGAIN", False),
    ("madvise", "EINVAL", True), ("madvise", "EAGAIN", True),
    ("posix_fadvise", "EINVAL", True),
    ("malloc", "ENOMEM", False),
    ("pthread_create", "EAGAIN", True),
]  # fmt: skip


@dataclasses.dataclass
class Work:
    """A command, and what it makes. {tiny} is the fixture's folder, {out} that of the output."""
    command: str
    before: dict = dataclasses.field(default_factory=dict)  # what lies in the output's folder
    env: dict = dataclasses.field(default_factory=dict)
    text: bool = False  # stdout is always the same
    same: bool = True  # and so are the files
    wants: tuple = ()  # functions without which the work cannot be done
    resumes: bool = False  # {tiny}/unfinished, and keeps what is done there whatever happens
    kept: str = ""  # the file of unfinished work, which may be left to go on with


CONVERT = "convert {tiny}/checkpoint {out}/m.quire --threads 2"
QUANTIZE = "quantize {tiny}/f16.quire {out}/m.quire --type q4 --threads 2"
CALIBRATE = "calibrate {tiny}/f16.quire -o {out}/m.calibration -f {tiny}/text --threads 2"
EXPORT = "export --threads 2 --format"
PERPLEXITY = "perplexity {tiny}/q4.quire -f {tiny}/text --threads 2"
UNFINISHED = "m.quire.unfinished"
NO_TMPFILE = {"QUIRE_FAULT_NO_TMPFILE": "1"}
OLD_FOLDER = {"m": None, "m/config.json": b"old", "m/model.safetensors": b"old"}

# bench is left out: it takes a second, and writes nothing.
WORKS = {
    "convert": Work(CONVERT),
    "convert_force": Work(CONVERT + " --force", {"m.quire": b"old"}),
    "convert_named": Work(CONVERT, env=NO_TMPFILE),
    "convert_gguf": Work("convert {tiny}/q4_0.gguf {out}/m.quire --threads 2"),
    "convert_safetensors": Work("convert {tiny}/packed {out}/m.quire --threads 2"),
    "quantize": Work(QUANTIZE),
    "quantize_by_file": Work(QUANTIZE + " --calibration {tiny}/calibration"),
    "quantize_calibrate": Work(QUANTIZE + " --calibrate -f {tiny}/text", kept=UNFINISHED),
    "quantize_resumed": Work(RESUMABLE + " {out}/m.quire", resumes=True, kept=UNFINISHED),
    "calibrate": Work(CALIBRATE),
    "calibrate_force": Work(CALIBRATE + " --hessians --force", {"m.calibration": b"old"}),
    "export_gguf": Work(EXPORT + " gguf {tiny}/q4_0.quire {out}/m"),
    "export_safetensors": Work(EXPORT + " safetensors {tiny}/q4.quire {out}/m"),
    "export_force": Work(EXPORT + " compressed-tensors {tiny}/q4_0.quire {out}/m --force", OLD_FOLDER),
    "export_named": Work(EXPORT + " safetensors {tiny}/q4.quire {out}/m", env=NO_TMPFILE),
    "run": Work("run {tiny}/q4.quire -n 4 -p the --threads 2", text=True),
    "run_file": Work("run {tiny}/q4.quire -n 4 -f {tiny}/prompt --threads 1", text=True),
    "perplexity": Work(PERPLEXITY + " --kl-base {tiny}/logits", text=True),
    "perplexity_save": Work(PERPLEXITY + " --save-logits {out}/logits", text=True),
    "footprint": Work("footprint {tiny}/q4.quire --html {out}/m.html", same=False, wants=("madvise",)),
    "verify": Work("verify {tiny}/q4.quire"),
    "inspect": Work("inspect {tiny}/checkpoint --json", text=True),
    "inspect_file": Work("inspect {tiny}/q4.quire --json", text=True),
}


class Driver:
    def __init__(self, quire, shim, tiny, work, scratch):
        self.quire, self.shim, self.tiny, self.work, self.scratch = quire, shim, tiny, work, scratch
        self.before = dict(work.before)
        if work.resumes:
            self.before[work.kept] = (tiny / "unfinished").read_bytes()
        self.runs = 0

    def run(self, fault=None):
        """(process, calls of the function that fails, files left)."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
        out = folder / "out"
        out.mkdir()
        for name, content in self.before.items():
            if content is None:
                (out / name).mkdir()
            else:
                (out / name).write_bytes(content)
        count = folder / "count"
        count.write_bytes(bytes(8))
        env = {**os.environ, **self.work.env, "LD_PRELOAD": str(self.shim), "QUIRE_FAULT_COUNT": str(count)}
        if fault is not None:
            env["QUIRE_FAULT"] = fault
        args = [arg.format(tiny=self.tiny, out=out) for arg in self.work.command.split()]
        done = subprocess.run([self.quire.path, *args], capture_output=True, timeout=TIMEOUT, env=env,
                              stdin=subprocess.DEVNULL)
        calls = struct.unpack("Q", count.read_bytes())[0]
        left = tree(out)
        shutil.rmtree(folder)
        self.runs += 1
        return done, calls, left

    def reference(self):
        done, _, self.after = self.run()
        assert done.returncode == 0, done.stderr
        assert (self.after != self.before) == ("{out}" in self.work.command)
        self.text = done.stdout

    def complaint(self, fault, must_work):
        """What is wrong with the end of a run with this fault, or None."""
        try:
            self.check(fault, must_work)
        except (AssertionError, subprocess.TimeoutExpired) as wrong:
            return str(wrong)

    def check(self, fault, must_work):
        work = self.work
        done, _, left = self.run(fault)
        what = f"{fault}: status {done.returncode}, {done.stderr.decode(errors='replace')!r}, left {sorted(left)}"
        by_signal = fault.endswith("SIGTERM")
        assert done.returncode in ((0, -signal.SIGTERM) if by_signal else (0, 1)), what
        after = self.after
        if not work.same and left.keys() == after.keys():
            after = left
        if done.returncode == 0:
            assert left == after, what
            assert done.stdout == self.text or not work.text, what
            return
        lines = done.stderr.decode().splitlines()
        if by_signal:
            assert not lines, what
        else:
            assert not must_work or fault.split(":")[0] in work.wants, what
            assert len(lines) == 1 and lines[0].startswith("quire") and len(lines[0]) > 20, what
        # What was there, or the whole output where only what came behind it failed.
        before = dict(self.before)
        if work.kept:
            kept = left.pop(work.kept, b"")
            before.pop(work.kept, None)
            assert not work.resumes or left == after or layers_done(kept) > 0, what
        assert left in (before, after), what


def sample(numbers):
    return sorted(random.Random(1).sample(numbers, min(SAMPLE, len(numbers))))


def before_main(driver):
    """Allocations of the loader and of constructors, about."""
    return Driver(driver.quire, driver.shim, driver.tiny, Work("--help"), driver.scratch).run("malloc:999999999:ENOMEM")[1] - 10


def places(driver, function, effect):
    """Every N at which the function is called; the allocations before main(), the same in all works, in one alone."""
    _, calls, _ = driver.run(f"{function}:999999999:{effect}")
    first = 1
    if function == "malloc" and driver.work is not WORKS["verify"]:
        first = before_main(driver)
    numbers = list(range(first, calls + 1))
    return numbers if ALL else sample(numbers)


def test_a_pattern_without_memory_is_not_another_pattern(quire, shim, tiny, tmp_path):
    """The tokenizer would be left out, with status 0."""
    driver = Driver(quire, shim, tiny, WORKS["export_gguf"], tmp_path)
    driver.reference()
    first, calls = before_main(driver), driver.run("malloc:999999999:ENOMEM")[1]
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        wrong = list(filter(None, pool.map(lambda n: driver.complaint(f"malloc:{n}:ENOMEM", False), range(first, calls + 1))))
    assert calls - first > 100 and not wrong, wrong


@pytest.mark.parametrize("name", WORKS)
def test_every_call_may_fail(quire, shim, tiny, tmp_path, name, record_property):
    driver = Driver(quire, shim, tiny, WORKS[name], tmp_path)
    driver.reference()
    tried, wrong = {}, []
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for function, effect, must_work in FAULTS:
            numbers = places(driver, function, effect)
            faults = [f"{function}:{n}:{effect}" for n in numbers]
            # And from there on; the first refused allocation ends nearly every run, so a sample of them does.
            if effect in ("ENOSPC", "ENOMEM", "EIO"):
                faults += [f"{function}:{n}+:{effect}" for n in (sample(numbers) if function == "malloc" else numbers)]
            wrong += filter(None, pool.map(lambda fault: driver.complaint(fault, must_work), faults))
            tried[f"{function} {effect}"] = len(faults)
    record_property("runs", driver.runs)
    print(f"\n{name}: {driver.runs} runs, " + ", ".join(f"{k} {v}" for k, v in tried.items()))
    assert not wrong, f"{len(wrong)} of {driver.runs} runs: " + "\n".join(wrong[:20])
    assert tried["malloc ENOMEM"] > 10 and tried["open EIO"] > 0


@pytest.mark.parametrize("name", WORKS)
def test_a_signal_between_any_two_calls(quire, shim, tiny, tmp_path, name, record_property):
    """F25, at every place of the work: it ends by the signal, without a word, and leaves nothing that is not whole."""
    driver = Driver(quire, shim, tiny, WORKS[name], tmp_path)
    driver.reference()
    _, calls, _ = driver.run("any:999999999:SIGTERM")
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        wrong = list(filter(None, pool.map(lambda n: driver.complaint(f"any:{n}:SIGTERM", False), range(1, calls + 1))))
    record_property("runs", driver.runs)
    print(f"\n{name}: {driver.runs} runs")
    assert calls > 20 and not wrong, f"{len(wrong)} of {calls} runs: " + "\n".join(wrong[:20])
