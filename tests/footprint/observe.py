"""What the kernel says of a process and of a file, read without any of Quire's code."""
import ctypes
import mmap
import os
import pathlib
import re
import subprocess
import time

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


def drop_from_page_cache(path):
    """Whether the page cache holds nothing of the file now. What a processor has only just used may need a second try."""
    for _ in range(50):
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if not any(resident_pages(path)):
            return True
        time.sleep(0.02)
    return False


def resident_pages(path):
    """One boolean a page: whether it is in the page cache."""
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        libc.mmap.restype = ctypes.c_void_p
        address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), ctypes.c_long(0))
        assert address not in (None, ctypes.c_void_p(-1).value)
        pages = ctypes.create_string_buffer((size + PAGE - 1) // PAGE)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return [byte & 1 == 1 for byte in pages.raw]


def fields(text):
    """{"Rss": bytes, ...} of the lines 'Rss:  12 kB'."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def mappings(pid, path):
    """(permissions, fields) of each mapping of the file `path`, by inode, in process `pid`."""
    inode = os.stat(path).st_ino
    text = pathlib.Path(f"/proc/{pid}/smaps").read_text()
    found = []
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE):
        head = block.split(None, 5)
        if len(head) > 4 and head[4] == str(inode):
            found.append((head[1], fields(block)))
    return found


def status(pid):
    return fields(pathlib.Path(f"/proc/{pid}/status").read_text())


def rollup(pid):
    return fields(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())


class MemoryCgroup:
    """A memory cgroup of its own with a limit, version 1 or 2, removed at the end. PermissionError where none may be made."""

    def __init__(self, limit):
        lines = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
        v1 = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
        v2 = next((path for number, _, path in lines if number == "0"), None)
        self.version, own = (1, v1) if v1 is not None else (2, v2)
        self.folder = None
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            left, right = line.split(" - ")
            kind, _, options = right.split(" ", 2)
            if own is not None and kind == ("cgroup" if self.version == 1 else "cgroup2") and (self.version == 2 or "memory" in options.split(",")):
                root, point = left.split()[3:5]
                self.folder = pathlib.Path(point) / os.path.relpath(own, root) / f"quire-test-{os.getpid()}"
        if self.folder is None:
            raise PermissionError("no memory cgroup is mounted here")
        try:
            self.folder.mkdir()
            self.set_limit(limit)
        except OSError as error:
            raise PermissionError(f"memory cgroups may not be made here: {error}") from error

    def set_limit(self, limit):
        (self.folder / ("memory.limit_in_bytes" if self.version == 1 else "memory.max")).write_text(str(limit))

    def join(self):
        (self.folder / "cgroup.procs").write_text("0")

    def oom_kills(self):
        text = (self.folder / ("memory.oom_control" if self.version == 1 else "memory.events")).read_text()
        return int(re.search(r"^oom_kill (\d+)$", text, re.MULTILINE).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(100):
            try:
                return self.folder.rmdir()
            except OSError:  # a process is still on its way out
                time.sleep(0.05)


class Process:
    """A running quire that is looked at from outside."""

    def __init__(self, quire, *args, env=None, cgroup=None):
        self.child = subprocess.Popen([quire.path, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      env={**os.environ, **(env or {})}, preexec_fn=cgroup.join if cgroup else None)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def look(self, at):
        """at(pid), or None once the process has ended."""
        try:
            return at(self.pid) if self.child.poll() is None else None
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None

    def wait_until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.look(condition):
            assert self.child.poll() is None, self.child.communicate()[1].decode()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def peak_anonymous(self):
        """The largest RssAnon until the process ends, which must succeed. Its output is small."""
        peak = 0
        while self.child.poll() is None:
            peak = max(peak, (self.look(status) or {}).get("RssAnon", 0))
            time.sleep(0.002)
        assert self.child.returncode == 0, self.child.stderr.read().decode()
        return peak
