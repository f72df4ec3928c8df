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

MOMENTS = 1000 if os.environ.get("QUIRE_ALL_FAULTS") == "1" else 20


@pytest.mark.parametrize("verb", ["convert", "quantize", "convert --force", "convert without O_TMPFILE"])
def test_killed_at_any_moment(quire, shim, tiny, tmp_path, verb, record_property):
    out = tmp_path / "out"
    out.mkdir()
    target = out / "m.quire"
    source = ["quantize", tiny / "f16.quire", target, "--type", "q4"] if verb == "quantize" else ["convert", tiny / "checkpoint", target]
    command = [quire.path, *map(str, source), *(["--force"] if "force" in verb else [])]
    named = "O_TMPFILE" in verb
    env = {**os.environ, **({"LD_PRELOAD": str(shim), "QUIRE_FAULT_NO_TMPFILE": "1"} if named else {})}
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=env)
    seconds = time.monotonic() - start
    want = target.read_bytes()
    choose = random.Random(1)
    counts = {"absent": 0, "whole": 0, "finished": 0}
    for _ in range(MOMENTS):
        target.unlink(missing_ok=True)
        if "force" in verb:
            target.write_bytes(b"old")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        time.sleep(choose.uniform(0, 1.2 * seconds))
        process.kill()
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        left = {path.name: path.read_bytes() for path in out.iterdir()}
        found = left.pop("m.quire", None)
        assert found in (None, want) or ("force" in verb and found == b"old")
        # At most the one temporary name, which the next attempt takes again.
        assert set(left) <= ({"m.quire.new"} if named or "force" in verb else set()), left.keys()
        counts["finished" if status == 0 else "absent" if found is None else "whole"] += 1
    record_property("moments", str(counts))
    print(f"\n{verb}: {counts}")
    subprocess.run([*command, *(["--force"] if "force" not in verb else [])], check=True, capture_output=True, env=env)
    assert target.read_bytes() == want and [path.name for path in out.iterdir()] == ["m.quire"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_f25_a_signal_that_ends_it_leaves_nothing(quire, shim, tmp_path, tiny, number):
    """Also where the temporary file has a name."""
    for named in (False, True):
        out = tmp_path / f"out{named}"
        out.mkdir()
        env = {**os.environ, **({"LD_PRELOAD": str(shim), "QUIRE_FAULT_NO_TMPFILE": "1"} if named else {})}
        ended = 0
        for delay in (0.001, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03):
            process = subprocess.Popen([quire.path, "convert", tiny / "checkpoint", out / "m.quire"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env,
                                       preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
            time.sleep(delay)
            process.send_signal(number)
            status = process.wait(timeout=60)
            assert status in (0, -number)
            ended += status != 0
            left = [path.name for path in out.iterdir()]
            assert left in ([], ["m.quire"]), left
            shutil.rmtree(out)
            out.mkdir()
        assert ended > 0
