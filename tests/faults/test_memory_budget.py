"""A --memory-budget above the least that can be given, and too small: the message says how much would do, and it does."""
import re
import subprocess

import pytest

from tiny_model import make_checkpoint

LEAST = 8 << 20
# Of 80000 columns one panel alone takes more than that to encode, of 2304 the second moments do.
COMMANDS = {
    "convert": "convert {wide}/checkpoint {out}",
    "quantize": "quantize {wide}/f16.quire {out} --type q4",
    "quantize --calibrate": "quantize {square}/f16.quire {out} --type q4 --calibrate -f {square}/text",
    "quantize --calibration": "quantize {square}/f16.quire {out} --type q4 --calibration {square}/calibration",
    "calibrate --hessians": "calibrate {square}/f16.quire -o {out} --hessians -f {square}/text",
    "calibrate a long text": "calibrate {square}/f16.quire -o {out} -f {square}/long_text",
}


@pytest.fixture(scope="module")
def models(quire, tmp_path_factory):
    made = {}
    for name, ffn in ("wide", 80000), ("square", 2304):
        folder = made[name] = tmp_path_factory.mktemp(name)
        make_checkpoint(folder / "checkpoint", ffn=ffn)
        quire("convert", folder / "checkpoint", folder / "f16.quire", "--type", "f16")
        (folder / "text").write_text("the aa " * 30)
        (folder / "long_text").write_text("the aa " * 20000)
    quire("calibrate", folder / "f16.quire", "-o", folder / "calibration", "-f", folder / "text", "--hessians")
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_a_budget_that_is_too_small_says_what_would_do(quire, models, tmp_path, name):
    out = tmp_path / "out"

    def run(budget):
        command = COMMANDS[name].format(out=out, **models).split()
        return subprocess.run([quire.path, *command, "--memory-budget", str(budget), "--threads", "2"], capture_output=True)

    def needed(budget):
        done = run(budget)
        text = done.stderr.decode()
        assert done.returncode == 1 and text.count("\n") == 1 and list(tmp_path.iterdir()) == [], text
        found = re.search(rf"takes (\d+) bytes of memory, the budget is {budget} \(--memory-budget\)", text)
        assert found, text
        return int(found[1])

    least = needed(LEAST)
    assert LEAST < least < 64 << 20
    assert needed(least - 1) == least
    done = run(least)
    assert done.returncode == 0, done.stderr
    if "type" in COMMANDS[name] or name == "convert":
        quire("verify", out)
