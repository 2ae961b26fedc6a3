#!/usr/bin/env python3
"""Speed of llama.cpp on a GGUF file, through its C API as the PyPI package llama-cpp-python carries it.

    peer_llamacpp.py MODEL.gguf [--prompt 512] [--generate 64] [--depth 0] [--threads 2] [--repeat 3]

Prints one JSON line: medians after one warm-up. The prompt is random ids in one batch of 512 rows at a time, as llama-bench does;
--depth fills the context first and is not timed.
"""

import argparse
import json
import random
import statistics
import time

import llama_cpp as llama


def decode(context, tokens, position):
    ids = (llama.llama_token * len(tokens))(*tokens)  # the batch only points at it
    batch = llama.llama_batch_get_one(ids, len(tokens))
    if llama.llama_decode(context, batch) != 0:
        raise SystemExit(f"llama_decode failed at position {position}")


def prefill(context, tokens, start=0):
    for at in range(0, len(tokens), 512):
        decode(context, tokens[at:at + 512], start + at)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    llama.llama_backend_init()
    quiet = llama.llama_log_callback(lambda level, text, data: None)  # the library keeps no reference
    llama.llama_log_set(quiet, None)
    model = llama.llama_model_load_from_file(options.model.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx = options.depth + options.prompt + options.generate + 8
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = options.threads
    context = llama.llama_init_from_model(model, params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    numbers = random.Random(1)
    ids = lambda n: [numbers.randrange(300, vocabulary) for _ in range(n)]
    rates = {"prefill": [], "decode": []}
    for turn in range(options.repeat + 1):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        prefill(context, ids(options.depth))
        llama.llama_synchronize(context)
        start = time.perf_counter()
        prefill(context, ids(options.prompt), options.depth)
        llama.llama_synchronize(context)
        middle = time.perf_counter()
        for i, token in enumerate(ids(options.generate)):
            decode(context, [token], options.depth + options.prompt + i)
            llama.llama_synchronize(context)
        end = time.perf_counter()
        if turn:
            rates["prefill"].append(options.prompt / (middle - start))
            rates["decode"].append(options.generate / (end - middle) if options.generate else 0.0)
    print(json.dumps({"engine": "llama.cpp", "prompt": options.prompt, "depth": options.depth,
                      "prefill_tokens_per_s": round(statistics.median(rates["prefill"]), 1),
                      "decode_tokens_per_s": round(statistics.median(rates["decode"]), 1)}))


if __name__ == "__main__":
    main()
