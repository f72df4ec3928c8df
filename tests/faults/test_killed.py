"""kill -9 at random moments: the output is absent, or whole; nothing piles up beside it.

20 moments each by default, QUIRE_ALL_FAULTS=1: 1,000 each.
"""
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


@pytest.mark.parametrize("name", WORKS)
def test_killed_at_any_moment(quire, shim, tiny, tmp_path, name, record_property):
    out = tmp_path / "out"
    out.mkdir()
    work, leftover, env = WORKS[name]
    command = [quire.path, *work.format(tiny=tiny, out=out).split()]
    env = {**os.environ, "LD_PRELOAD": str(shim), **env}
    old = {"m": None, "m/config.json": b"old"} if "export" in name else {"m": b"old"}

    def start_with(what):
        shutil.rmtree(out / "m") if (out / "m").is_dir() else (out / "m").unlink(missing_ok=True)
        for path, content in what.items():
            (out / path).mkdir() if content is None else (out / path).write_bytes(content)

    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=env)
    seconds = time.monotonic() - start
    want = tree(out)
    choose = random.Random(1)
    counts = {"absent": 0, "old": 0, "whole": 0, "finished": 0}
    for _ in range(MOMENTS):
        start_with(old if "force" in name else {})
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        time.sleep(choose.uniform(0, 1.2 * seconds))
        process.kill()
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        left = tree(out)
        found = {path: content for path, content in left.items() if path.split("/")[0] == "m"}
        assert found in ({}, want) or ("force" in name and found == old)
        # At most the one temporary name, which the next attempt takes again.
        assert {path.split("/")[0] for path in left} <= {"m", leftover}, left.keys()
        counts["finished" if status == 0 else "absent" if not found else "old" if found == old else "whole"] += 1
    record_property("moments", str(counts))
    print(f"\n{name}: {counts}")
    start_with({})
    subprocess.run(command, check=True, capture_output=True, env=env)
    assert tree(out) == want


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
