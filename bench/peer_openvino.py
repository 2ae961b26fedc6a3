#!/usr/bin/env python3
"""Speed of OpenVINO GenAI on a GGUF file (llama, qwen2, qwen3; Q4_0, Q8_0).

    peer_openvino.py MODEL.gguf [--prompt 512] [--generate 64] [--repeat 3]

Prints one JSON line: medians after one warm-up. Random ids; the end of a sequence is ignored. Needs the PyPI packages openvino,
openvino-genai and openvino-tokenizers. It uses every core it finds.
"""

import argparse
import json
import statistics

import numpy as np
import openvino
import openvino_genai


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    pipeline = openvino_genai.LLMPipeline(options.model, "CPU", enable_save_ov_model=False)
    settings = openvino_genai.GenerationConfig(max_new_tokens=options.generate, ignore_eos=True, do_sample=False)
    settings.apply_chat_template = False
    mask = openvino.Tensor(np.ones((1, options.prompt), np.int64))
    rates = {"prefill": [], "decode": []}
    for turn in range(options.repeat + 1):
        ids = np.random.default_rng(turn).integers(300, 30000, (1, options.prompt), np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), mask)
        metrics = pipeline.generate(inputs, settings).perf_metrics
        if turn:
            rates["prefill"].append(options.prompt / metrics.get_ttft().mean * 1000)
            rates["decode"].append(1000 / metrics.get_tpot().mean)
    print(json.dumps({"engine": "OpenVINO GenAI", "prompt": options.prompt,
                      "prefill_tokens_per_s": round(statistics.median(rates["prefill"]), 1),
                      "decode_tokens_per_s": round(statistics.median(rates["decode"]), 1)}))


if __name__ == "__main__":
    main()
