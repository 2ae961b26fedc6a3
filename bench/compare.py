#!/usr/bin/env python3
"""Pensieve and its peers side by side on the same shapes: one CSV row an engine, shape and prompt length.

    compare.py --models DIR [--shapes qwen3-0.6b ...] [--prompts 512 ...] [--out bench/results/models.csv]

DIR holds SHAPE-mlx/ (for Pensieve) and SHAPE.gguf (Q4_0, for the peers), random weights of the real shapes. Engines take turns, so
that what else the machine does falls on all of them. Peers run when their PyPI packages are importable by this Python:
llama-cpp-python, openvino-genai.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FIELDS = ["commit", "machine", "engine", "shape", "prompt", "prefill_tokens_per_s", "prefill_ratio", "decode_tokens_per_s",
          "decode_ratio", "read_bandwidth_percent", "command"]


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores"


def importable(module):
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def commands(options, shape, prompt):
    gguf = f"{options.models}/{shape}.gguf"
    sizes = ["--prompt", str(prompt), "--generate", str(options.generate), "--repeat", str(options.repeat)]
    yield "Pensieve", [options.pensieve, "bench", "--model", f"{options.models}/{shape}-mlx", "--json", *sizes]
    if importable("llama_cpp") and not options.skip_llamacpp:
        yield "llama.cpp", [sys.executable, str(HERE / "peer_llamacpp.py"), gguf, "--threads", str(os.cpu_count()), *sizes]
    if importable("openvino_genai"):
        yield "OpenVINO GenAI", [sys.executable, str(HERE / "peer_openvino.py"), gguf, *sizes]


def measure(options, shape, prompt, commit):
    rows = []
    for engine, command in commands(options, shape, prompt):
        run = subprocess.run(command, capture_output=True, text=True)
        lines = run.stdout.strip().splitlines()
        if run.returncode != 0 or not lines:
            print(f"{engine} on {shape}: failed: {run.stderr.strip()[-300:]}", file=sys.stderr)
            continue
        start = next(i for i, line in enumerate(lines) if line.startswith("{"))
        result = json.loads("".join(lines[start:]))
        rows.append({"commit": commit, "machine": machine(), "engine": engine, "shape": shape, "prompt": prompt,
                     "prefill_tokens_per_s": round(result["prefill_tokens_per_s"], 1),
                     "decode_tokens_per_s": round(result["decode_tokens_per_s"], 1),
                     "read_bandwidth_percent": round(result.get("read_bandwidth_percent", 0), 1) or "",
                     "command": " ".join(pathlib.Path(part).name if "/" in part else part for part in command)})
    for kind in ("prefill", "decode"):
        peers = [row[f"{kind}_tokens_per_s"] for row in rows if row["engine"] != "Pensieve"]
        for row in rows:
            best = max(peers, default=0)
            row[f"{kind}_ratio"] = round(row[f"{kind}_tokens_per_s"] / best, 2) if best and row["engine"] == "Pensieve" else ""
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True)
    parser.add_argument("--shapes", nargs="+", default=["smollm2-135m", "qwen3-0.6b"])
    parser.add_argument("--prompts", nargs="+", type=int, default=[512])
    parser.add_argument("--generate", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--pensieve", default=str(HERE.parent / "build/release/pensieve"))
    parser.add_argument("--skip-llamacpp", action="store_true", help="as it takes minutes for a long prompt")
    parser.add_argument("--out", default=str(HERE / "results/models.csv"))
    options = parser.parse_args()
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    new = not os.path.exists(options.out)
    with open(options.out, "a", newline="") as out:
        writer = csv.DictWriter(out, FIELDS)
        if new:
            writer.writeheader()
        for shape in options.shapes:
            for prompt in options.prompts:
                for row in measure(options, shape, prompt, commit):
                    writer.writerow(row)
                    print({key: row[key] for key in FIELDS[2:-1]})


if __name__ == "__main__":
    main()
