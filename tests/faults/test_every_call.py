"""The N-th call of a function fails, for every N, in convert, quantize, run and verify of a tiny model.

Each run ends in what it would have done anyway, or with status 1, one line that says why, and no output. It never ends
by a signal, never hangs, never leaves a file that is not whole. By default every N of the system calls and a sample of
the allocations; QUIRE_ALL_FAULTS=1 tries every one.
"""
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile

import pytest

ALL = os.environ.get("QUIRE_ALL_FAULTS") == "1"
SAMPLE = 40  # of the places where one function can fail
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
    ("rename", "EXDEV", False), ("rename", "EACCES", False), ("rename", "EIO", False),
    ("mmap", "ENOMEM", False), ("mmap", "ENODEV", False), ("mmap", "EAGAIN", False),
    ("madvise", "EINVAL", True), ("madvise", "EAGAIN", True),
    ("posix_fadvise", "EINVAL", True),
    ("malloc", "ENOMEM", False),
    ("pthread_create", "EAGAIN", True),
]  # fmt: skip


@dataclasses.dataclass
class Work:
    """A command, and what it makes."""
    args: list
    output: str = ""  # a file
    before: bytes = None  # what the file holds before it is replaced
    reference: bytes = None  # what the file, or stdout, holds afterwards
    env: dict = dataclasses.field(default_factory=dict)
    kept: str = ""  # a file that may be left, to go on with


def works(tiny):
    run = ["run", tiny / "q4.quire", "-p", "the aa", "-n", "4", "--threads", "2"]
    convert = ["convert", tiny / "checkpoint", "{out}", "--threads", "2"]
    return {
        "convert": Work(convert, "out.quire"),
        "convert_force": Work(convert + ["--force"], "out.quire", b"old"),
        "convert_named": Work(convert, "out.quire", env={"QUIRE_FAULT_NO_TMPFILE": "1"}),
        "quantize": Work(["quantize", tiny / "f16.quire", "{out}", "--type", "q4", "--threads", "2"], "out.quire"),
        "calibrate": Work(["quantize", tiny / "f16.quire", "{out}", "--type", "q4", "--calibrate", "-f", tiny / "text",
                           "--threads", "2"], "out.quire", kept="out.quire.unfinished"),
        "run": Work(run),
        "run_file": Work(["run", tiny / "q4.quire", "-f", tiny / "prompt", "-n", "4", "--threads", "1"]),
        "verify": Work(["verify", tiny / "q4.quire"]),
        "inspect": Work(["inspect", tiny / "checkpoint", "--json"]),
    }


class Driver:
    def __init__(self, quire, shim, work, scratch):
        self.quire, self.shim, self.work, self.scratch = quire, shim, work, scratch
        self.runs = 0

    def run(self, fault=None):
        """(process, calls of the function that fails, files left)."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
        place = folder / "out"
        place.mkdir()
        target = place / (self.work.output or "none")
        if self.work.before is not None:
            target.write_bytes(self.work.before)
        count = folder / "count"
        count.write_bytes(bytes(8))
        env = {**os.environ, **self.work.env, "LD_PRELOAD": str(self.shim), "QUIRE_FAULT_COUNT": str(count)}
        if fault is not None:
            env["QUIRE_FAULT"] = fault
        args = [str(target) if a == "{out}" else str(a) for a in self.work.args]
        done = subprocess.run([self.quire.path, *args], capture_output=True, timeout=TIMEOUT, env=env,
                              stdin=subprocess.DEVNULL)
        calls = struct.unpack("Q", count.read_bytes())[0]
        left = {path.name: path.read_bytes() for path in place.iterdir()}
        shutil.rmtree(folder)
        self.runs += 1
        return done, calls, left

    def reference(self):
        done, _, left = self.run()
        assert done.returncode == 0, done.stderr
        self.work.reference = left[self.work.output] if self.work.output else done.stdout

    def complaint(self, fault, must_work):
        """What is wrong with the end of a run with this fault, or None."""
        try:
            self.check(fault, must_work)
        except (AssertionError, subprocess.TimeoutExpired) as wrong:
            return str(wrong)

    def check(self, fault, must_work):
        done, _, left = self.run(fault)
        what = f"{fault}: status {done.returncode}, {done.stderr.decode(errors='replace')!r}"
        assert done.returncode in (0, 1), what
        work = self.work
        if done.returncode == 0:
            # verify and inspect print times and paths.
            if work.output:
                assert left == {work.output: work.reference}, what
            elif work.args[0] == "run":
                assert done.stdout == work.reference, what
            return
        assert not must_work, what
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 1 and lines[0].startswith("quire") and len(lines[0]) > 20, what
        if work.output:
            # Nothing, the old file, or the whole new one where only what came behind it failed.
            allowed = [{} if work.before is None else {work.output: work.before}, {work.output: work.reference}]
            left.pop(work.kept, None)
            assert left in allowed, (what, sorted(left))


def places(driver, function, effect):
    """Every N at which the function is called."""
    _, calls, _ = driver.run(f"{function}:999999999:{effect}")
    numbers = list(range(1, calls + 1))
    if not ALL and len(numbers) > SAMPLE:
        numbers = sorted(random.Random(1).sample(numbers, SAMPLE))
    return numbers


@pytest.mark.parametrize("name", ["convert", "convert_force", "convert_named", "quantize", "calibrate", "run", "run_file", "verify",
                                  "inspect"])
def test_every_call_may_fail(quire, shim, tiny, tmp_path, name, record_property):
    (tiny / "prompt").write_text("the aa")
    (tiny / "text").write_text("the aa " * 30)
    driver = Driver(quire, shim, works(tiny)[name], tmp_path)
    driver.reference()
    tried, wrong = {}, []
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for function, effect, must_work in FAULTS:
            numbers = places(driver, function, effect)
            # Once, and from there on.
            repeats = ["", "+"] if effect in ("ENOSPC", "ENOMEM", "EIO") else [""]
            faults = [f"{function}:{n}{again}:{effect}" for n, again in itertools.product(numbers, repeats)]
            wrong += filter(None, pool.map(lambda fault: driver.complaint(fault, must_work), faults))
            tried[f"{function} {effect}"] = len(faults)
    record_property("runs", driver.runs)
    print(f"\n{name}: {driver.runs} runs, " + ", ".join(f"{k} {v}" for k, v in tried.items()))
    assert not wrong, f"{len(wrong)} of {driver.runs} runs: " + "\n".join(wrong[:20])
    assert tried["malloc ENOMEM"] > 10 and tried["open EIO"] > 0
