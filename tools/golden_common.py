"""What the golden scripts share: rounding for small files, top-k distributions."""

import json

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def rounded(values, digits):
    return [round(float(v), digits) for v in values]


def write_json(path, document):
    with open(path, "w") as file:
        json.dump(document, file, separators=(",", ":"))
        file.write("\n")
