"""Ids and text against the `tokenizers` package, over thousands of hard strings a tokenizer."""
import base64
import json
import resource
import subprocess
import sys

import pytest

from harness import BINARY, DATA, EMBEDDER, GENERATOR, ROOT, SHARED, clean_environment, run

sys.path.insert(0, str(ROOT / "tools"))
import tokenizer_golden  # noqa: E402
from tokenizer_strings import Strings  # noqa: E402

STRINGS = 2000


def compare(model, reference):
    texts = Strings(tokenizer_golden.SEED).make(STRINGS)
    assert len(texts) >= STRINGS
    stdin = "".join(json.dumps({"text_b64": tokenizer_golden.b64(data)}) + "\n" for data in texts)
    done = run("tokenize", "--model", model, "--jsonl", stdin=stdin, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(texts)
    different = []
    for data, line in zip(texts, lines):
        want, have = tokenizer_golden.expected(reference, data), json.loads(line)
        if have["ids"] != want["ids"] or have["decoded_b64"] != want["decoded_b64"]:
            different.append((data, have["ids"][:20], want["ids"][:20], base64.b64decode(have["decoded_b64"])[:60],
                              base64.b64decode(want["decoded_b64"])[:60]))
    assert not different, f"{len(different)} of {len(texts)} strings differ, first: {different[:3]}"


def test_smollm2():
    compare(GENERATOR, tokenizer_golden.load(str(GENERATOR)))


def test_minilm():
    compare(EMBEDDER, tokenizer_golden.load(str(EMBEDDER / "tokenizer.json")))


def test_qwen3():
    path = SHARED / "tokenizers" / "qwen3" / "tokenizer.json"
    if not path.exists():
        pytest.skip("the large tokenizer is not beside this checkout")
    compare(path, tokenizer_golden.load(str(path)))


@pytest.mark.parametrize("name", ["llama2", "unigram", "o200k"])
def test_a_tokenizer_json_by_itself(name):
    path = DATA / "tokenizer" / f"{name}.tokenizer.json"
    compare(path, tokenizer_golden.load(str(path)))


def test_decoding_gives_the_text_back():
    """Where the vocabulary can spell the text: this one lacks some control bytes, and special tokens are left out."""
    reference = tokenizer_golden.load(str(GENERATOR))
    texts = [data.decode("utf-8", "replace").encode() for data in Strings(7).make(500)]
    texts = [data for data in texts if reference.decode(reference.encode(data.decode()).ids) == data.decode()]
    assert len(texts) > 300
    stdin = "".join(json.dumps({"text_b64": tokenizer_golden.b64(data)}) + "\n" for data in texts)
    lines = run("tokenize", "--model", GENERATOR, "--jsonl", stdin=stdin).stdout.splitlines()
    assert [base64.b64decode(json.loads(line)["decoded_b64"]) for line in lines] == texts


def test_a_text_of_millions_of_words_needs_little_memory(tmp_path):
    """Words are tokenized one by one: 31 MB of them took 1.3 GB when all were held at once."""
    text = tmp_path / "words.txt"
    text.write_text("a " * 15_500_000)
    limit = 800 << 20
    done = subprocess.run([BINARY, "tokenize", "--model", GENERATOR, "-f", text], capture_output=True, text=True,
                          env=clean_environment(), timeout=300,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.count(" ") > 15_000_000
