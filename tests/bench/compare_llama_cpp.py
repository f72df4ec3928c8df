#!/usr/bin/env python3
"""Quire beside llama.cpp: one checkpoint, files of both, runs that take turns, each in a process of its own.

    bazel build //:quire && tests/bench/compare_llama_cpp.py --shape 7b --rounds 5

The checkpoint is a Hugging Face folder of PyTorch shards (--checkpoint), or is made: random weights in a model's shape (--shape).
What is built and measured is kept in --work, so that a run can be cut into pieces: --rounds 1, again and again, or --only. --report
writes the table and the plot from what is there. llama.cpp is the one inside PyPI's llama-cpp-python, compiled here for this CPU into
WORK/venv, where the Python that runs this has none.

A run is called warm where mincore finds the whole file in the page cache just before it, and cold where it finds nothing; beside a
cold run the file is read plainly, front to back. llama.cpp's times begin with the call that loads the model, Quire's with the process.
"""
import argparse
import ctypes
import json
import mmap
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy==2.4.6", "torch==2.13.0"]
Q4_0, Q4_K_M = 2, 15  # llama_ftype


class Side:
    """One way to run the model: a row of the table."""

    def __init__(self, label, file, *, flags=(), env=None, cold=False):
        self.label, self.file, self.flags, self.env, self.cold = label, file, list(flags), env or {}, cold
        self.is_quire = file.endswith(".quire")


SIDES = {
    "quire-q4": Side("Quire q4", "q4.quire", cold=True),
    "llama-q4_0": Side("llama.cpp Q4_0", "q4_0.gguf", cold=True),
    "quire-q4_0": Side("Quire q4_0", "q4_0.quire"),
    "llama-q4_k_m": Side("llama.cpp Q4_K_M", "q4_k_m.gguf"),
    "quire-avx2": Side("Quire q4, AVX2 kernels", "q4.quire", env={"QUIRE_KERNELS": "avx2"}),
    "llama-q4_0-mapped": Side("llama.cpp Q4_0, not repacked", "q4_0.gguf", flags=["--no-repack"], cold=True),
}


def ensure_llama_cpp(work):
    """Goes on in an interpreter that has llama.cpp."""
    try:
        import gguf, llama_cpp, numpy, torch  # noqa: F401
    except ImportError:
        python = work / "venv/bin/python"
        if Path(sys.executable) == python:
            raise
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True, env=dict(os.environ, CMAKE_ARGS="-DGGML_NATIVE=ON"))
        os.execv(python, [str(python), *sys.argv])


def timed(results, name, command):
    """Runs a step of the making of a file once, and notes how long it took."""
    start = time.monotonic()
    command()
    results["made"][name] = round(time.monotonic() - start, 2)


def quantize_gguf(source, target, ftype):
    import llama_cpp

    log = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp does not quantize {source}")


def make_files(args, results):
    """The files that are missing."""
    import checkpoint_to_gguf

    wanted = {SIDES[name].file for name in args.only}
    for kind in ("q4", "q4_0"):
        path = args.work / f"{kind}.quire"
        if path.name in wanted and not path.exists():
            convert = [args.quire, "convert", args.checkpoint, path, "--type", kind, "--tokenizer", "none"]
            timed(results, f"quire convert --type {kind}", lambda: subprocess.run(convert, check=True, stdout=subprocess.DEVNULL))
    plain = args.work / "bf16.gguf"
    for file, ftype in (("q4_0.gguf", Q4_0), ("q4_k_m.gguf", Q4_K_M)):
        path = args.work / file
        if file not in wanted or path.exists():
            continue
        if not plain.exists():
            timed(results, "llama.cpp checkpoint to 16-bit GGUF", lambda: checkpoint_to_gguf.write_gguf(args.checkpoint, plain))
        partial = path.with_suffix(".partial")
        timed(results, f"llama.cpp quantize to {path.stem.upper()}", lambda: quantize_gguf(plain, partial, ftype))
        partial.rename(path)
    plain.unlink(missing_ok=True)


def cached_bytes(path):
    """What the page cache holds of a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = ctypes.create_string_buffer(-(-len(mapped) // mmap.PAGESIZE))
        address = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(len(mapped)), pages)
        del address
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


def read_through(path):
    """A plain sequential read; returns its seconds."""
    start = time.monotonic()
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.monotonic() - start


def drop(path):
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_bytes(path) > path.stat().st_size / 100:
        sys.exit(f"{path} does not leave the page cache: is something else using it?")


def memory_of(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {f"rss_{kind}_bytes": 1024 * int(fields[f"Rss{kind.capitalize()}"].split()[0]) for kind in ("anon", "file")}


def run(args, side, prompt_tokens, tokens, prefill_tokens):
    """One measured process. Figures in milliseconds, tokens/s and bytes."""
    path = args.work / side.file
    env = dict(os.environ, **side.env)
    if side.is_quire:
        command = [args.quire, "bench", path, "--worker", "--prompt-tokens", prompt_tokens, "--tokens", tokens]
    else:
        command = [sys.executable, HERE / "llama_cpp_worker.py", path, "--prompt-tokens", prompt_tokens, "--tokens", tokens,
                   "--prefill-tokens", prefill_tokens, *side.flags]
    command = [str(part) for part in [*args.under, *command, "--threads", args.threads]]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"no figures from: {shlex.join(command)}")
        figures = json.loads(line)
        if not args.under:
            figures.update(memory_of(process.pid))
        else:  # the measured process is the child of what it runs under
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            figures.update(memory_of(children[-1] if children else process.pid))
        process.stdin.close()
    return figures


def roofs(args):
    """Read bandwidth and int8 peak of this moment."""
    command = [str(part) for part in [*args.under, args.quire, "bench", args.embedded, "--prompt-tokens", 1, "--tokens", 2, "--repetitions", 1,
                                      "--threads", args.threads, "--json"]]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"read_bytes_per_second": report["memory_read_bytes_per_second"], "ops_per_second": report["compute_ops_per_second"]}


def measure(args, name, results):
    """One warm run of one side, and a cold one where that is asked for, beside the machine's limits at the moment."""
    side, path = SIDES[name], args.work / SIDES[name].file
    for _ in range(3):
        if cached_bytes(path) >= path.stat().st_size:
            break
        drop(path)  # or the gaps would be filled in small pieces
        read_through(path)
    else:
        sys.exit(f"{path} does not stay in the page cache: {path.stat().st_size} bytes, more than there is room for?")
    sample = {"side": name, "before": roofs(args)}
    sample.update(run(args, side, args.prompt_tokens, args.tokens, args.prefill_tokens))
    if side.is_quire:
        del sample["prefill_tokens_per_second"]  # of the short prompt
        if args.prefill_tokens > 0:
            sample["prefill_tokens_per_second"] = run(args, side, args.prefill_tokens, 2, 0)["prefill_tokens_per_second"]
    sample["after"] = roofs(args)
    if side.cold and args.cold:
        # Twice, since what lies beneath (a host's cache, a drive's) may remember what was read first: the faster one counts.
        drop(path)
        plain = read_through(path)
        drop(path)
        sample["cold_first_token_ms"] = run(args, side, args.prompt_tokens, 2, 0)["first_token_ms"]
        drop(path)
        sample["plain_read_ms"] = 1e3 * min(plain, read_through(path))
    results["samples"].append(sample)
    print(f"{side.label:32} first token {sample['first_token_ms']:6.0f} ms, decode {sample['decode_tokens_per_second']:6.2f}, "
          f"prefill {sample.get('prefill_tokens_per_second', 0):7.2f}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--checkpoint", type=Path, help="a folder with config.json and pytorch_model*.bin")
    what.add_argument("--shape", default="7b", help="a shape of tests/footprint/shapes.py")
    parser.add_argument("--quire", type=Path, default=HERE.parent.parent / "bazel-bin/quire")
    parser.add_argument("--work", type=Path, default=Path("build/compare"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SIDES), help=f"of {','.join(SIDES)}")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt-tokens", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=48, help="to decode")
    parser.add_argument("--prefill-tokens", type=int, default=512, help="0: leaves prefill out, for more rounds of the rest in the same time")
    parser.add_argument("--no-cold", dest="cold", action="store_false", help="without the cold starts")
    parser.add_argument("--under", type=shlex.split, default=[], help='run each measured process under this, such as "taskset -c 0,1"')
    parser.add_argument("--report", type=Path, metavar="SVG", help="write WORK/report.md and this plot, from all rounds so far")
    args = parser.parse_args()
    args.embedded = args.work / "roof.quire"
    args.work.mkdir(parents=True, exist_ok=True)
    ensure_llama_cpp(args.work)
    sys.path[:0] = [str(HERE), str(HERE.parent / "footprint")]
    if args.checkpoint is None:
        args.checkpoint = args.work / args.shape
        if not args.checkpoint.exists():
            import shapes

            shapes.write_checkpoint(args.checkpoint, args.shape, share_layers=True)

    store = args.work / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {"made": {}, "samples": []}
    save = lambda: store.write_text(json.dumps(results, indent=1))  # noqa: E731
    make_files(args, results)
    if not args.embedded.exists():
        subprocess.run([args.quire, "convert", HERE.parent / "testdata/embedded", args.embedded], check=True, stdout=subprocess.DEVNULL)
    save()
    for _ in range(args.rounds):
        for name in args.only:
            measure(args, name, results)
            save()
    if args.report:
        import compare_report

        (args.work / "report.md").write_text(compare_report.write(args, SIDES, results))
        print((args.work / "report.md").read_text())


if __name__ == "__main__":
    main()
