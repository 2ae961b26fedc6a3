#!/usr/bin/env python3
"""Golden vectors of all-MiniLM-L6-v2 from the sentence-transformers package in float64.

    golden_minilm.py MODEL_DIRECTORY tests/data/models/minilm_golden.json

Needs sentence-transformers (and torch).
"""

import sys

from sentence_transformers import SentenceTransformer

from golden_common import rounded, write_json

TEXTS = [
    "Hello world",
    "The quick brown fox jumps over the lazy dog.",
    "Machine learning is a subset of artificial intelligence.",
    "How do I reset my password?",
    "Wie setze ich mein Passwort zurück?",
    "def add(a, b):\n    return a + b",
    "",
    "!",
    "In 1987 a young engineer measured both clocks for three weeks and wrote down 21 pairs of numbers. " * 6,
    "東京の天気は晴れです。 Ünïcödé 🎉",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
]


def main():
    model = SentenceTransformer(sys.argv[1], device="cpu").double()
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    entries = []
    for text, vector in zip(TEXTS, vectors):
        ids = model.tokenizer(text)["input_ids"]
        entries.append({"text": text, "ids": ids, "vector": rounded(vector, 7)})
    write_json(sys.argv[2], {"source": "tools/golden_minilm.py", "texts": entries})


main()
