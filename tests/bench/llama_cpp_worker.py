"""One measured process of llama.cpp, through llama-cpp-python's C interface: loads a GGUF file, runs token ids, prints one line of
JSON, and waits until its standard input ends. Python's own start is not counted: times run from the call that loads the model."""
import argparse
import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np


def feed(context, tokens):
    ids = (llama_cpp.llama_token * len(tokens))(*tokens)
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(tokens))) != 0:
        sys.exit("llama_decode failed")


def likeliest(context, vocab_size):
    return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(vocab_size,)).argmax())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-repack", action="store_true")
    args = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()

    start = time.monotonic()
    model_params = llama_cpp.llama_model_default_params()
    if args.no_repack:
        model_params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = max(512, args.prefill_tokens + args.tokens)
    params.n_threads = params.n_threads_batch = args.threads
    context = llama_cpp.llama_init_from_model(model, params)
    if not model or not context:
        sys.exit(f"llama.cpp does not load {args.model}")
    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    ready = time.monotonic()

    # The same ids on both sides do not matter: a dense model reads and multiplies everything for any.
    ids = np.random.default_rng(1).integers(3, vocab_size, size=args.prompt_tokens + args.prefill_tokens)
    feed(context, ids[: args.prompt_tokens])
    token = likeliest(context, vocab_size)
    first_token = time.monotonic()
    for _ in range(args.tokens):
        feed(context, [token])
        token = likeliest(context, vocab_size)
    decoded = time.monotonic()
    figures = {"ready_ms": 1e3 * (ready - start), "first_token_ms": 1e3 * (first_token - start),
               "decode_tokens_per_second": args.tokens / (decoded - first_token)}
    if args.prefill_tokens > 0:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        begin = time.monotonic()
        feed(context, ids[args.prompt_tokens:])
        likeliest(context, vocab_size)
        figures["prefill_tokens_per_second"] = args.prefill_tokens / (time.monotonic() - begin)
    print(json.dumps(figures), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
