"""A tiny model and the shim that makes system calls fail."""
import os
import pathlib
import subprocess

import pytest

from tiny_model import make_checkpoint, make_unfinished_work

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-o", path, HERE / "fault_shim.c"],
                   check=True)
    return path


@pytest.fixture(scope="session")
def tiny(quire, shim, tmp_path_factory):
    """A folder of one tiny model in every form that a verb reads, and texts of one word and of 60."""
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder / "checkpoint")
    (folder / "prompt").write_text("the aa")
    (folder / "text").write_text("the aa " * 30)
    quire("convert", folder / "checkpoint", folder / "f16.quire", "--type", "f16")
    quire("convert", folder / "checkpoint", folder / "q4.quire")
    quire("convert", folder / "checkpoint", folder / "q4_0.quire", "--type", "q4_0")
    quire("export", folder / "q4_0.quire", folder / "q4_0.gguf", "--format", "gguf")
    quire("export", folder / "q4_0.quire", folder / "packed", "--format", "compressed-tensors")
    quire("calibrate", folder / "f16.quire", "-o", folder / "calibration", "-f", folder / "text", "--hessians")
    quire("perplexity", folder / "f16.quire", "-f", folder / "text", "--save-logits", folder / "logits")
    make_unfinished_work(quire, shim, folder)
    return folder
