"""Models larger than memory: what stays, what is read for each token, and what happens when something goes wrong on the way."""
import json
import os
import subprocess
import sys

import pytest

import observe

MIB = 1 << 20
PROMPT = ("run", "MODEL", "-p", "It was a", "-n", "24", "--json")


@pytest.fixture
def limited():
    """limited(bytes): a memory cgroup, where this user may make one."""
    made = []

    def make(limit):
        try:
            made.append(observe.MemoryCgroup(limit))
        except PermissionError as error:
            pytest.skip(f"NOT TESTED: {error}")
        return made[-1]

    yield make
    for cgroup in made:
        cgroup.__exit__()


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def run(quire, path, *args, env=None):
    return quire.json(*(str(path) if arg == "MODEL" else arg for arg in PROMPT[:-1]), *args, env=env)


def test_streaming_changes_no_token(quire, models):
    path = models("embedded")
    mapped = run(quire, path)
    assert mapped["weights_streamed_bytes"] == mapped["stream_buffer_bytes"] == 0
    size = mapped["weights_kept_bytes"]
    seen = set()
    for resident in (1, size * 2 // 3, size - 200000):
        streamed = run(quire, path, "--resident", resident)
        assert streamed["tokens"] == mapped["tokens"]
        assert streamed["weights_kept_bytes"] + streamed["weights_streamed_bytes"] == size
        taken = streamed["weights_kept_bytes"] + streamed["stream_buffer_bytes"]
        assert taken <= resident or resident == 1  # less than two layers and the output matrix is not possible
        seen.add(streamed["weights_streamed_bytes"])
    assert len(seen) == 3
    assert run(quire, path, "--resident", size)["weights_streamed_bytes"] == 0
    said = quire.run("run", path, "-p", "It", "-n", 1, "--resident", 1).stderr.decode()
    assert "stay in memory" in said and "limited by --resident" in said and said.count("\n") == 1


def test_nothing_is_added_where_everything_fits(quire, models):
    """No thread, no buffer, no line."""
    path = models("160m")
    with observe.Process(quire, "footprint", path, "--tokens", 150, "--threads", 1, "--json") as process:
        process.wait_until(lambda pid: sum(c["Rss"] for _, c in observe.mappings(pid, path)) > 72 * MIB)
        # Beside the one that computes, the one that samples the timeline; the first pass is read ahead by another.
        process.wait_until(lambda pid: threads(pid) <= 2)
        output, error = process.child.communicate()
    report = json.loads(output)
    assert error == b"" and report["weights_streamed_bytes"] == report["stream_buffer_bytes"] == report["residence_changes"] == 0


def test_under_a_limit_the_kept_part_stays(quire, models, limited):
    path, limit, tokens = models("160m"), 82 * MIB, 40
    assert observe.drop_from_page_cache(path)
    cgroup = limited(limit)
    with observe.Process(quire, "footprint", path, "--tokens", tokens, "--json", "--threads", 1, cgroup=cgroup) as process:
        output, error = process.child.communicate()
        assert process.child.returncode == 0, error
    report = json.loads(output)
    assert cgroup.oom_kills() == 0
    streamed, kept = report["weights_streamed_bytes"], report["weights_kept_bytes"]
    # What cannot stay, and not much more: buffers and what a process needs beside the weights.
    assert streamed + kept - limit < streamed < streamed + kept - limit + 25 * MIB
    for tensor in report["tensors"]:
        if tensor["streamed"]:
            assert tensor["resident_bytes"] == 0, tensor
        elif tensor["name"] != "embedding":
            assert tensor["resident_bytes"] == tensor["bytes"], tensor
    # The kept part is read once, the rest once for each token, the prompt's, two that measure touches, and one ahead.
    assert report["read_bytes"] <= kept + (tokens + 4) * streamed + 4 * MIB
    assert sum(t["touched_bytes"] for t in report["tensors"]) == pytest.approx(kept + streamed, rel=0.02)
    ledger = report["ledger"]
    assert 0 < ledger["stream_buffer_resident_bytes"] <= report["stream_buffer_bytes"]
    assert ledger["other_anon_bytes"] <= 2 * MIB and ledger["weights_anon_bytes"] == 0


def test_the_limit_may_change_at_any_time(quire, models, limited):
    path = models("160m")
    assert observe.drop_from_page_cache(path)
    cgroup = limited(200 * MIB)
    cached = lambda: sum(observe.resident_pages(path)) * observe.PAGE
    with observe.Process(quire, "footprint", path, "--tokens", 2040, "--ctx", 2048, "--threads", 1, cgroup=cgroup) as process:
        process.wait_until(lambda pid: cached() > 76 * MIB)
        process.wait_until(lambda pid: threads(pid) <= 2)
        cgroup.set_limit(70 * MIB)
        process.wait_until(lambda pid: threads(pid) > 2 and cached() < 60 * MIB)
        cgroup.set_limit(200 * MIB)
        process.wait_until(lambda pid: threads(pid) <= 2 and cached() > 76 * MIB)
        assert cgroup.oom_kills() == 0


def test_what_other_processes_map_stays_theirs(quire, models, limited, tmp_path):
    path, limit, theirs = models("160m"), 112 * MIB, 40 * MIB
    other = tmp_path / "other"
    other.write_bytes(os.urandom(theirs))
    assert observe.drop_from_page_cache(path) and observe.drop_from_page_cache(other)
    cgroup = limited(limit)
    neighbour = subprocess.Popen([sys.executable, "-c", f"""
import mmap, sys, time
f = open({str(other)!r}, "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
while True:
    sum(m[::4096])
    print("read", flush=True)
    time.sleep(0.2)
"""], stdout=subprocess.PIPE, preexec_fn=cgroup.join)
    try:
        neighbour.stdout.readline()
        with observe.Process(quire, "footprint", path, "--tokens", 60, "--json", "--threads", 1, cgroup=cgroup) as process:
            output, error = process.child.communicate()
            assert process.child.returncode == 0, error
        assert json.loads(output)["weights_streamed_bytes"] > 0
        assert sum(observe.resident_pages(other)) * observe.PAGE == theirs
    finally:
        neighbour.kill()
        neighbour.wait()


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// SHIM=eio: the direct reads after the first hundred fail. SHIM=refuse: no file opens for direct reads. SHIM=einval: they fail.
static int direct(int fd) { return fd >= 0 && (fcntl(fd, F_GETFL) & O_DIRECT); }
static const char* mode(void) { const char* m = getenv("SHIM"); return m ? m : ""; }
ssize_t pread(int fd, void* to, size_t n, off_t at) {
  static ssize_t (*next)(int, void*, size_t, off_t);
  static int reads;
  if (!next) next = dlsym(RTLD_NEXT, "pread");
  if (direct(fd) && !strcmp(mode(), "eio") && __sync_add_and_fetch(&reads, 1) > 100) { errno = EIO; return -1; }
  if (direct(fd) && !strcmp(mode(), "einval")) { errno = EINVAL; return -1; }
  return next(fd, to, n, at);
}
ssize_t pread64(int fd, void* to, size_t n, off_t at) { return pread(fd, to, n, at); }
int open(const char* path, int flags, ...) {
  static int (*next)(const char*, int, ...);
  va_list rest;
  va_start(rest, flags);
  int how = va_arg(rest, int);
  va_end(rest);
  if (!next) next = dlsym(RTLD_NEXT, "open");
  if ((flags & O_DIRECT) && !strcmp(mode(), "refuse")) { errno = EINVAL; return -1; }
  return next(path, flags, how);
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int how = va_arg(rest, int);
  va_end(rest);
  return open(path, flags, how);
}
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """shim(mode): an environment in which reads fail."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return lambda mode: {"LD_PRELOAD": str(folder / "shim.so"), "SHIM": mode}


def test_a_read_error_ends_the_text_with_one_line_that_says_where(quire, models, shim):
    done = quire.run("run", models("embedded"), "-p", "It was a", "-n", 200, "--resident", 1, env=shim("eio"))
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2 and "stay in memory" in lines[0]
    assert lines[1].startswith(f"quire: {models('embedded')}: reading weights at byte ") and "Input/output error" in lines[1]
    # A measured process has said why: the parent adds nothing.
    done = quire.run("bench", models("embedded"), "--tokens", 60, "--repetitions", 1, "--resident", 1, env=shim("eio"))
    assert done.returncode == 1
    assert len(done.stderr.decode().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("mode", ["refuse", "einval"])
def test_a_file_system_without_direct_reads(quire, models, shim, mode):
    path = models("embedded")
    want = run(quire, path)["tokens"]
    streamed = run(quire, path, "--resident", 1, env=shim(mode))
    assert streamed["tokens"] == want and streamed["weights_streamed_bytes"] > 0
    # What was read is dropped again: the page cache holds no more of it than what is in flight.
    assert observe.drop_from_page_cache(path)
    report = quire.json("footprint", path, "--tokens", 8, "--resident", 1, env=shim(mode))
    cached = sum(t["resident_bytes"] for t in report["tensors"] if t["streamed"])
    assert cached <= 0.2 * report["weights_streamed_bytes"]
