"""kill -9 between any two system calls, and at random moments: the output is absent, or whole; nothing piles up beside it.

20 random moments each by default, QUIRE_ALL_FAULTS=1: 1,000 each.
"""
import collections
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from tiny_model import tree

MOMENTS = 1000 if os.environ.get("QUIRE_ALL_FAULTS") == "1" else 20


CONVERT = "convert {tiny}/checkpoint {out}/m"
CALIBRATE = "quantize {tiny}/f16.quire {out}/m --type q4 --calibrate -f {tiny}/text"
EXPORT = "export {tiny}/q4.quire {out}/m --format safetensors"
NO_TMPFILE = {"QUIRE_FAULT_NO_TMPFILE": "1"}

# (command, what may be left beside the output, by which the next attempt begins; the environment)
WORKS = {
    "convert": (CONVERT, None, {}),
    "convert --force": (CONVERT + " --force", "m.new", {}),
    "convert without O_TMPFILE": (CONVERT, "m.new", NO_TMPFILE),
    "quantize": ("quantize {tiny}/f16.quire {out}/m --type q4", None, {}),
    "quantize --calibrate": (CALIBRATE, "m.unfinished", {}),
    "calibrate": ("calibrate {tiny}/f16.quire -o {out}/m -f {tiny}/text --hessians", "m.unfinished", {}),
    "export": (EXPORT, "m.new", {}),
    "export --force": (EXPORT + " --force", "m.new", {}),
}


class Victim:
    """A work in a folder of its own, where what is killed may leave something for the next."""

    def __init__(self, quire, shim, tiny, folder, name):
        self.out = folder / "out"
        self.out.mkdir()
        work, self.leftover, env = WORKS[name]
        self.command = [quire.path, *work.format(tiny=tiny, out=self.out).split()]
        self.env = {**os.environ, "LD_PRELOAD": str(shim), **env}
        self.old = {} if "force" not in name else {"m": None, "m/config.json": b"old"} if "export" in name else {"m": b"old"}
        start = time.monotonic()
        self.finish()
        self.seconds = time.monotonic() - start

    def restore(self):
        """What was there before; of the unfinished, what is left."""
        m = self.out / "m"
        shutil.rmtree(m) if m.is_dir() else m.unlink(missing_ok=True)
        for path, content in self.old.items():
            (self.out / path).mkdir() if content is None else (self.out / path).write_bytes(content)

    def start(self, fault=None):
        self.restore()
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                env=self.env if fault is None else {**self.env, "QUIRE_FAULT": fault})

    def finish(self):
        """Undisturbed, whatever is left: nothing but the output."""
        process = self.start()
        _, complaint = process.communicate()
        assert process.returncode == 0, complaint
        self.want = getattr(self, "want", tree(self.out))
        assert tree(self.out) == self.want

    def outcome(self, process):
        """In a word; what is left is the old or the new whole, and at most the one temporary name."""
        _, complaint = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), complaint
        left = tree(self.out)
        found = {path: content for path, content in left.items() if path.split("/")[0] == "m"}
        assert found in (self.old, self.want)
        assert {path.split("/")[0] for path in left} <= {"m", self.leftover}, left.keys()
        return "finished" if process.returncode == 0 else "whole" if found == self.want else "old" if found else "absent"


@pytest.mark.parametrize("name", WORKS)
def test_killed_at_any_moment(quire, shim, tiny, tmp_path, name, record_property):
    victim = Victim(quire, shim, tiny, tmp_path, name)
    choose = random.Random(1)
    outcomes = collections.Counter()
    for _ in range(MOMENTS):
        process = victim.start()
        time.sleep(choose.uniform(0, 1.2 * victim.seconds))
        process.kill()
        outcomes[victim.outcome(process)] += 1
    record_property("moments", str(outcomes))
    print(f"\n{name}: {dict(outcomes)}")
    victim.finish()


@pytest.mark.parametrize("name", WORKS)
def test_killed_between_any_two_calls(quire, shim, tiny, tmp_path, name):
    """The next attempt gets along with what each leaves."""
    victim = Victim(quire, shim, tiny, tmp_path, name)
    outcomes = collections.Counter()
    while outcomes["finished"] == 0:
        outcomes[victim.outcome(victim.start(f"any:{outcomes.total() + 1}:SIGKILL"))] += 1
        victim.finish()
    print(f"\n{name}: {dict(outcomes)}")
    assert outcomes.total() > 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_f25_a_signal_that_ends_it_leaves_nothing(quire, shim, tmp_path, tiny, number):
    """Whichever thread the signal meets; also where the temporary file has a name, and where it is a folder.

    test_every_call.py has every place of the working thread.
    """
    for i, (work, env) in enumerate([(CONVERT, {}), (CONVERT, NO_TMPFILE), (EXPORT, {}), (EXPORT, NO_TMPFILE),
                                     ("calibrate {tiny}/f16.quire -o {out}/m -f {tiny}/text", {})]):
        out = tmp_path / f"out{i}"
        out.mkdir()
        env = {**os.environ, "LD_PRELOAD": str(shim), **env}
        ended, seconds = 0, None
        for moment in (None, *range(16)):
            start = time.monotonic()
            process = subprocess.Popen([quire.path, *work.format(tiny=tiny, out=out).split()],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env,
                                       preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
            if moment is None:
                assert process.wait(timeout=60) == 0
                seconds = time.monotonic() - start
            else:
                time.sleep(moment / 16 * seconds)
            process.send_signal(number)
            status = process.wait(timeout=60)
            assert status in (0, -number)
            ended += status != 0
            left = [path.name for path in out.iterdir()]
            assert left in ([], ["m"]), left
            shutil.rmtree(out)
            out.mkdir()
        assert ended > 0
