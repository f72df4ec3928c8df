"""Disks, limits and neighbours that fail while quire works. Each test is named after its case in docs/security.md."""
import contextlib
import os
import pathlib
import pty
import resource
import shutil
import signal
import subprocess
import time

import pytest


def limited(quire, args, limit=None, value=0, **kwargs):
    """The finished process under a resource limit."""
    def apply():
        resource.setrlimit(limit, (value, value))
    return subprocess.run([quire.path, *map(str, args)], capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
                          preexec_fn=apply if limit is not None else None, **kwargs)


def fails(done, *words):
    text = done.stderr.decode(errors="replace")
    assert done.returncode == 1, (done.returncode, text)
    assert text.count("\n") == 1 and text.endswith("\n"), text
    assert all(word in text for word in words), text


@contextlib.contextmanager
def running(quire, model, **kwargs):
    """A run that has begun to answer and has some seconds to go."""
    process = subprocess.Popen([quire.path, "run", model, "-p", "It was", "-n", "500", "--ctx", "512", "--ignore-eos", "--threads", "1"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "QUIRE_KERNELS": "scalar"}, **kwargs)
    try:
        assert process.stdout.read(1)
        yield process
    finally:
        process.kill()
        process.wait()


def finished(process):
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def embedded(quire, tmp_path_factory):
    """A model of 4.5 MB, which takes a second or two for 500 tokens."""
    path = tmp_path_factory.mktemp("embedded") / "m.quire"
    quire("convert", pathlib.Path(__file__).parents[1] / "testdata" / "embedded", path)
    return path


@pytest.fixture
def copy(embedded, tmp_path):
    return pathlib.Path(shutil.copy(embedded, tmp_path / "m.quire"))


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def small_disk(folder, size):
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
                                           capture_output=True).returncode != 0:
        pytest.skip("NOT TESTED: mounting a small disk wants root")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


# The file of a running model.

def test_f1_truncated_to_nothing_while_it_runs(quire, copy):
    with running(quire, copy) as process:
        os.truncate(copy, 0)
        fails(finished(process), "m.quire", "cut short")


def test_f2_truncated_inside_the_last_page(quire, copy):
    """No signal: the kernel gives zeros."""
    with running(quire, copy) as process:
        os.truncate(copy, copy.stat().st_size - 16)
        fails(finished(process), "m.quire", "cannot be trusted")


def test_f3_overwritten_in_place_is_found_by_verify(quire, copy):
    quire("verify", copy)
    quire("run", copy, "-p", "It", "-n", "2", "--verify")
    with open(copy, "r+b") as file:
        file.seek(copy.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    for args in (["verify", copy], ["run", copy, "-p", "It", "-n", "2", "--verify"]):
        fails(limited(quire, args), "checksum")
    assert limited(quire, ["run", copy, "-p", "It", "-n", "2"]).returncode == 0


@pytest.mark.parametrize("how", ["rename", "unlink"])
def test_f4_replaced_or_removed_while_it_runs(quire, embedded, copy, how):
    with running(quire, embedded) as undisturbed:
        want = finished(undisturbed).stdout
    with running(quire, copy) as process:
        if how == "rename":
            other = copy.with_name("other")
            other.write_bytes(b"something else")
            other.rename(copy)
        else:
            copy.unlink()
        done = finished(process)
        assert done.returncode == 0 and done.stdout == want


def test_f5_a_page_that_cannot_be_read(quire, copy):
    """The kernel says so by SIGBUS."""
    with running(quire, copy) as process:
        process.send_signal(signal.SIGBUS)
        fails(finished(process), "m.quire", "could not be read")


def test_f7_a_file_system_without_mapped_files(quire, shim, tiny):
    """Without shared mappings a private one does."""
    args = ["run", tiny / "q4.quire", "-p", "a", "-n", "4"]
    want = quire(*args)
    for fault in ("mmap:1:ENODEV", "mmap:1+:ENODEV"):
        done = limited(quire, args, env={**os.environ, "LD_PRELOAD": str(shim), "QUIRE_FAULT": fault})
        if "+" in fault:
            fails(done, "q4.quire", "no mapped files")
        else:
            assert done.returncode == 0 and done.stdout.decode() == want


# Limits of the process.

@pytest.mark.parametrize("verb", ["convert", "quantize", "run", "verify", "inspect"])
def test_f8_little_address_space(quire, tiny, out, verb):
    """Every size from what the program itself takes to what is enough."""
    args = {"convert": ["convert", tiny / "checkpoint", out / "m.quire", "--threads", "2"],
            "quantize": ["quantize", tiny / "f16.quire", out / "m.quire", "--type", "q4", "--threads", "2"],
            "run": ["run", tiny / "q4.quire", "-p", "a", "-n", "2", "--threads", "2"],
            "verify": ["verify", tiny / "q4.quire"], "inspect": ["inspect", tiny / "checkpoint"]}[verb]
    codes = set()
    for mebibytes in [*range(14, 48), *range(48, 320, 8), 1024]:
        done = limited(quire, args, resource.RLIMIT_AS, mebibytes << 20)
        if done.returncode == 127:  # the loader found no room for the program's libraries
            continue
        assert done.returncode in (0, 1), (mebibytes, done)
        if done.returncode == 1:
            fails(done)
            assert list(out.iterdir()) == []
        for path in out.iterdir():
            assert path.read_bytes() == (tiny / "q4.quire").read_bytes() or verb == "quantize"
            quire("verify", path)
            path.unlink()
        codes.add(done.returncode)
    assert done.returncode == 0


def test_f15_a_file_size_limit(quire, tiny, out):
    """Every limit up to the file's size: nothing, then all of it."""
    size = (tiny / "q4.quire").stat().st_size
    for limit in [0, 1, 4095, 4096, *range(16384, size, 16384), size - 1]:
        fails(limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"], resource.RLIMIT_FSIZE, limit), "m.quire")
        assert list(out.iterdir()) == []
    assert limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"], resource.RLIMIT_FSIZE, size).returncode == 0
    assert (out / "m.quire").read_bytes() == (tiny / "q4.quire").read_bytes()


def test_f14_a_full_disk(quire, tiny, out):
    size = (tiny / "q4.quire").stat().st_size
    for kibibytes in (16, size // 2048, size // 1024 - 16):
        with small_disk(out, f"{kibibytes}k"):
            fails(limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"]), "No space left")
            fails(limited(quire, ["quantize", tiny / "f16.quire", out / "m.quire", "--type", "q4"]), "No space left")
            assert list(out.iterdir()) == []
    with small_disk(out, f"{size // 1024 + 64}k"):
        assert limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"]).returncode == 0
        # No room for a second one beside it: the old one stays.
        fails(limited(quire, ["convert", tiny / "checkpoint", out / "m.quire", "--type", "f32", "--force"]), "No space left")
        assert (out / "m.quire").read_bytes() == (tiny / "q4.quire").read_bytes() and len(list(out.iterdir())) == 1


@pytest.mark.parametrize("verb", ["convert", "run"])
def test_f23_few_open_files(quire, tiny, out, verb):
    args = {"convert": ["convert", tiny / "checkpoint", out / "m.quire"], "run": ["run", tiny / "q4.quire", "-p", "a", "-n", "2"]}[verb]
    for limit in range(4, 16):
        done = limited(quire, args, resource.RLIMIT_NOFILE, limit)
        if done.returncode == 127:
            continue
        if done.returncode != 0:
            fails(done)
            assert list(out.iterdir()) == []
        for path in out.iterdir():
            assert path.read_bytes() == (tiny / "q4.quire").read_bytes()
            path.unlink()
    assert done.returncode == 0


def test_f24_no_threads(quire, tiny):
    """Fewer threads, the same text."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("NOT TESTED: root has no limit of threads, and there is no setpriv")
    want = quire("run", tiny / "q4.quire", "-p", "the", "-n", "8")
    for path in (tiny, *tiny.parents[:3]):
        path.chmod(path.stat().st_mode | 0o755)
    program = [quire.path, "run", tiny / "q4.quire", "-p", "the", "-n", "8", "--threads", "8"]
    if os.geteuid() == 0:
        program = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", *program]
    done = subprocess.run(list(map(str, program)), capture_output=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (2, 2)))
    if done.returncode in (126, 127):
        pytest.skip("NOT TESTED: another user may not start this binary")
    assert done.returncode == 0 and done.stdout.decode() == want, done.stderr


# Folders and standard streams.

def test_a_folder_that_may_not_be_written(quire, tiny, out):
    done = limited(quire, ["convert", tiny / "checkpoint", "/proc/m.quire"])
    fails(done, "/proc/m.quire")
    if os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", out], capture_output=True).returncode == 0:
        try:
            fails(limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"]), "Read-only file system")
        finally:
            subprocess.run(["umount", out], check=True)
    elif os.geteuid() != 0:
        out.chmod(0o555)
        fails(limited(quire, ["convert", tiny / "checkpoint", out / "m.quire"]), "Permission denied")
        out.chmod(0o755)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams(quire, tiny, out, closed):
    """What is opened next would get their numbers: no message may go into a model."""
    def close():
        for fd in closed:
            os.close(fd)
    done = subprocess.run([quire.path, "convert", tiny / "checkpoint", out / "m.quire"], stdin=subprocess.DEVNULL,
                          capture_output=True, preexec_fn=close)
    assert done.returncode == (1 if 1 in closed else 0)
    assert (out / "m.quire").read_bytes() == (tiny / "q4.quire").read_bytes()
    done = subprocess.run([quire.path, "run", tiny / "q4.quire", "-p", "a", "-n", "2"], stdin=subprocess.DEVNULL,
                          capture_output=True, preexec_fn=close)
    assert done.returncode == (1 if 1 in closed else 0)


def test_a_reader_that_goes_away(quire, copy):
    """As with any filter: SIGPIPE, or where that is ignored a message."""
    with running(quire, copy) as process:
        process.stdout.close()
        assert process.wait(timeout=120) == -signal.SIGPIPE
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([quire.path, "run", copy, "-p", "It was", "-n", "20"], stdout=write, stderr=subprocess.PIPE, restore_signals=False,
                          preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN))
    os.close(write)
    fails(done, "standard output cannot be written")


def test_a_disk_that_fills_up_under_the_output(quire, copy):
    """An answer of which a part is lost is a failure, also where the end of it could be written again."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([quire.path, "run", copy, "-p", "It was", "-n", "20"], stdout=full, stderr=subprocess.PIPE)
    fails(done, "standard output cannot be written")


def test_ctrl_c(quire, copy):
    with running(quire, copy, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT


# What is seen at a terminal.

def test_verify_shows_progress_at_a_terminal(quire, embedded):
    leader, follower = pty.openpty()
    done = subprocess.run([quire.path, "verify", embedded], stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    with contextlib.suppress(OSError):
        shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0 and "verify" in shown and "%" in shown


def test_the_notice_of_a_full_context_has_a_line_of_its_own(quire, embedded):
    done = subprocess.run([quire.path, "run", embedded, "-p", "It was", "-n", "500", "--ctx", "16", "--ignore-eos"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode()
    assert done.returncode == 0 and "\nquire: stopped: the context of 16 tokens is full" in text, text
