#!/usr/bin/env python3
"""What quantizing costs: one checkpoint through Quire's types and llama.cpp's, the same tokens, one Markdown table.

    bazel build //:quire && tests/bench/quality.py MODEL/ wiki.valid.txt --work /tmp/quality

MODEL is a Hugging Face folder with pytorch_model*.bin. The base of every divergence is Quire's own run of the 16-bit weights: `quire
perplexity --save-logits`. Scored is the second half of each chunk of 512 tokens, as llama.cpp's perplexity tool does: NLL of the next
token; KL divergence of the base's distribution to the type's, mean and 99th percentile; how often both find the same token likeliest.
llama.cpp is the one inside PyPI's llama-cpp-python. Its calibrated types get the mean squares that `quire calibrate` measured, on the
text that `--calibrate` uses. Embedding and output are Q8_0 on both sides. "bits" are those of the layers' matrices, all that is stored
for them. What is done is kept in --work and not done again.
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

import checkpoint_to_gguf

LLAMA_TYPES = {"Q4_0": 2, "IQ4_XS": 30, "IQ4_NL": 25, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17}
QUIRE_TYPES = {"q4": ("--type", "q4"), "q4_hq": ("--type", "q4_hq"), "--target-bits 5.5": ("--type", "q4", "--target-bits", "5.5")}


class Base:
    """A logits file of quire perplexity --save-logits (runtime/logits_file.h)."""

    def __init__(self, path):
        data = np.memmap(path, np.uint8, "r")
        assert bytes(data[:8]) == b"QLOGITS1"
        self.vocab_size, self.ctx, self.n_chunks, self.first = map(int, data[8:24].view("<u4"))
        n = self.n_chunks * self.ctx
        self.tokens = np.array(data[24:24 + 4 * n].view("<i4")).reshape(self.n_chunks, self.ctx)
        row = np.dtype([("max", "<f4"), ("argmax", "<i4"), ("codes", "<u2", self.vocab_size)])
        self.rows = data[24 + 4 * n:].view(row).reshape(self.n_chunks, self.ctx - 1 - self.first)

    def log_probabilities(self, chunk):
        rows = self.rows[chunk]
        values = rows["max"][:, None] - rows["codes"].astype(np.float64) * (30 / 65535)
        return values - np.log(np.exp(values).sum(1, keepdims=True))


class Llama:
    def __init__(self, path, base, threads):
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = base.ctx
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.model or not self.context:
            sys.exit(f"llama.cpp does not load {path}")

    def logits(self, tokens, first, vocab_size):
        """After tokens[first:], from the beginning of a sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = int(token), i, 1, 0, i >= first
        if llama_cpp.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")
        rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, i), shape=(vocab_size,)) for i in range(first, len(tokens))]
        logits = np.array(rows, np.float64)
        llama_cpp.llama_batch_free(batch)
        return logits

    def decode_speed(self, vocab_size, n=64):
        self.logits(np.arange(8), 7, vocab_size)
        start = time.monotonic()
        for i in range(n):
            token = (llama_cpp.llama_token * 1)(i + 8)
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(token, 1)) != 0:
                sys.exit("llama_decode failed")
            llama_cpp.llama_get_logits_ith(self.context, -1)
        return n / (time.monotonic() - start)

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def measure_llama(path, base, threads):
    model = Llama(path, base, threads)
    nll, kld, same = [], [], []
    for chunk in range(base.n_chunks):
        tokens = base.tokens[chunk]
        logits = model.logits(tokens[:-1], base.first, base.vocab_size)
        top = logits.max(1, keepdims=True)
        log_q = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        log_p = base.log_probabilities(chunk)
        nll.append(-log_q[np.arange(len(log_q)), tokens[base.first + 1:]])
        kld.append((np.exp(log_p) * (log_p - log_q)).sum(1))
        same.append(log_q.argmax(1) == base.rows[chunk]["argmax"])
    speed = model.decode_speed(base.vocab_size)
    model.close()
    kld = np.concatenate(kld)
    return {"perplexity": float(np.exp(np.concatenate(nll).mean())), "mean_kld": float(kld.mean()), "p99_kld": float(np.quantile(kld, 0.99)),
            "top1_agreement": float(np.concatenate(same).mean()), "decode": speed}


def layer_bits(path):
    bits = weights = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            bits += 8 * int(tensor.n_bytes)
            weights += int(tensor.n_elements)
    return bits / weights


def importance(path, config):
    """The importance matrix that a calibration file (quantize/calibration_file.h) without second moments amounts to."""
    data = path.read_bytes()
    assert data[:8] == b"QUIRECAL" and data[12:16] == bytes(4)
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    inputs = ((config["hidden_size"], ("attn_q", "attn_k", "attn_v")), (heads * head_dim, ("attn_output",)),
              (config["hidden_size"], ("ffn_gate", "ffn_up")), (config["intermediate_size"], ("ffn_down",)))
    offset, squares = 64, {}
    for layer in range(config["num_hidden_layers"]):
        for columns, names in inputs:
            values = np.frombuffer(data, "<f4", columns, offset).copy()
            offset += 4 * columns + 8
            squares.update({f"blk.{layer}.{name}.weight": values for name in names})
    assert offset == len(data)
    return squares


def quantize_gguf(source, target, ftype, squares):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.nthread = 0
    params.output_tensor_type = params.token_embedding_type = gguf.GGMLQuantizationType.Q8_0
    if squares is not None:
        entries = (llama_cpp.llama_model_imatrix_data * (len(squares) + 1))()  # the last one, without a name, ends it
        for entry, (name, values) in zip(entries, squares.items()):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp does not quantize {source}")


class Work:
    def __init__(self, args):
        self.args, self.folder = args, args.work
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results_path = self.folder / "results.json"
        self.results = json.loads(self.results_path.read_text()) if self.results_path.exists() else {}

    def once(self, name, measure):
        if name not in self.results:
            print(name, file=sys.stderr)
            self.results[name] = measure()
            self.results_path.write_text(json.dumps(self.results, indent=1))

    def quire(self, *arguments):
        done = subprocess.run([self.args.quire, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"quire {' '.join(map(str, arguments))} failed")
        return done.stdout

    def file(self, name, make):
        """A file that `make` writes, unless it is there."""
        path = self.folder / name
        if not path.exists():
            partial = self.folder / f"partial-{name}"
            partial.unlink(missing_ok=True)
            make(partial)
            partial.rename(path)
        return path

    def measure_quire(self, source, base, flags):
        path = self.folder / "type.quire"
        plan = json.loads(self.quire("quantize", source, path, *flags, "--force", "--json"))
        result = json.loads(self.quire("perplexity", path, "-f", self.args.text, "--chunks", self.args.chunks, "--kl-base", base, "--json"))
        bench = json.loads(self.quire("bench", path, "--json"))
        path.unlink()
        return {**result, "bits": plan["bits_per_weight"], "bytes": plan["file_bytes"], "seconds": plan["seconds"],
                "decode": bench["decode_tokens_per_second"]}

    def measure_gguf(self, source, base, ftype, squares):
        path = self.folder / "type.gguf"
        start = time.monotonic()
        quantize_gguf(source, path, ftype, squares)
        seconds = time.monotonic() - start
        result = measure_llama(path, base, self.args.threads)
        result.update(bits=layer_bits(path), bytes=path.stat().st_size, seconds=seconds)
        path.unlink()
        return result


def table(results):
    weights = results["base"]["weights"]
    lines = ["| type | bits of the layers' matrices | bits of the file | file | PPL | mean KLD | 99% KLD | top-1 | seconds to quantize | decode, tokens/s |",
             "|---|---|---|---|---|---|---|---|---|---|",
             f"| 16 bits | 16 | | | {results['base']['perplexity']:.3f} | | | | | |"]
    for name, r in results.items():
        if name != "base":
            lines.append(f"| {name} | {r['bits']:.2f} | {8 * r['bytes'] / weights:.2f} | {r['bytes'] / 1e6:.1f} MB | {r['perplexity']:.3f} | {r['mean_kld']:.4f} "
                         f"| {r['p99_kld']:.3f} | {r['top1_agreement']:.3f} | {r['seconds']:.0f} | {r['decode']:.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--quire", default="bazel-bin/quire")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    work = Work(args)
    config = json.loads((args.checkpoint / "config.json").read_text())
    f16 = work.file("f16.quire", lambda path: work.quire("convert", args.checkpoint, path, "--type", "source"))
    logits = work.file("base.logits", lambda path: work.quire(
        "perplexity", f16, "-f", args.text, "--chunks", args.chunks, "--save-logits", path))

    def base_result():
        result = json.loads(work.quire("perplexity", f16, "-f", args.text, "--chunks", args.chunks, "--json"))
        shapes = [t["shape"] for t in json.loads(work.quire("inspect", f16, "--tensors", "--json"))["tensors"]]
        return {**result, "weights": sum(int(np.prod(shape)) for shape in shapes)}

    work.once("base", base_result)
    for name, flags in QUIRE_TYPES.items():
        work.once(f"Quire `{name}`", lambda: work.measure_quire(f16, logits, flags))
        work.once(f"Quire `{name} --calibrate`", lambda: work.measure_quire(f16, logits, (*flags, "--calibrate")))
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    plain = work.file("f16.gguf", lambda path: checkpoint_to_gguf.write_gguf(args.checkpoint, path))
    calibration = work.file("importance.calibration", lambda path: work.quire("calibrate", f16, "-o", path))
    squares, base = importance(calibration, config), Base(logits)
    work.once("llama.cpp 16 bits", lambda: {**measure_llama(plain, base, args.threads), "bits": 16, "bytes": plain.stat().st_size, "seconds": 0})
    for name, ftype in LLAMA_TYPES.items():
        work.once(f"llama.cpp {name}", lambda: work.measure_gguf(plain, base, ftype, None))
        work.once(f"llama.cpp {name}, calibrated", lambda: work.measure_gguf(plain, base, ftype, squares))
    print(table(work.results))


if __name__ == "__main__":
    main()
