"""Structured answers of the default model at temperature 1: do all of them parse and validate, and what does it cost?

    build/venv/bin/python bench/structured.py [--answers 500]

Half of the answers are streamed. Then the speed of one stream, constrained and not, in turns.
"""
import argparse
import concurrent.futures
import json
import pathlib
import random
import statistics
import sys
import time

import jsonschema
import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from harness import GENERATOR_NAME, Server  # noqa: E402
from schemas import PERSON, random_schema  # noqa: E402

CONTENT = [{"role": "user", "content": "Invent something short."}]
# As free as text: a long string.
LONG = {"type": "object", "properties": {"text": {"type": "string", "minLength": 4000}}, "required": ["text"], "additionalProperties": False}


def body(schema, **fields):
    form = {} if schema is None else {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    return {"model": GENERATOR_NAME, "messages": CONTENT, "temperature": 1, "max_completion_tokens": 500, **form, **fields}


def one(server, seed):
    schema = PERSON if seed % 2 == 0 else random_schema(random.Random(seed))
    stream = seed % 4 < 2
    answer = server.post("/v1/chat/completions", body(schema, seed=seed, stream=stream))
    assert answer.status_code == 200, answer.text
    if stream:
        chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
        reason = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1]
    else:
        choice = answer.json()["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert reason == "stop", (seed, reason, text)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(text))


def speed(server, schema, seed):
    """Tokens per second between the first and the last."""
    story = [{"role": "user", "content": "Write a very long story about a ship and its crew."}]
    fields = body(schema, messages=story, seed=seed, max_completion_tokens=256, stream=True)
    times = []
    with requests.post(server.url + "/v1/chat/completions", json=fields, stream=True, timeout=600) as answer:
        for line in answer.iter_lines():
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter())
    return (len(times) - 1) / (times[-1] - times[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with Server() as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            done = [future.result() for future in [pool.submit(one, server, seed) for seed in range(options.answers)]]
        print(f"{len(done)} answers parse and validate")
        speeds = {"free": [], "constrained": []}
        for seed in range(options.rounds + 1):
            pair = speed(server, None, seed), speed(server, LONG, seed)
            if seed > 0:
                speeds["free"].append(pair[0])
                speeds["constrained"].append(pair[1])
        free, constrained = (statistics.median(speeds[name]) for name in ("free", "constrained"))
        print(f"one stream: {free:.1f} tokens/s free, {constrained:.1f} constrained: {constrained / free:.1%}")


if __name__ == "__main__":
    main()
