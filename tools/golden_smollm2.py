#!/usr/bin/env python3
"""Golden logits of SmolLM2-135M-Instruct (GGUF) from an independent float64 forward pass in numpy.

    golden_smollm2.py MODEL.gguf tests/data/models/smollm2_golden.json

Weights are dequantized by the `gguf` package and used in the file's own row order (interleaved rotary pairs), tokens come
from the `tokenizers` package: nothing here is shared with the C++ code. Needs numpy, gguf, tokenizers.
"""

import sys

import gguf
import numpy as np
import tokenizers
from gguf.quants import dequantize

from golden_common import log_softmax, rounded, write_json

TEXT = """The harbour town of Kestrel Bay had two clocks, and they never agreed. The one on the church was wound by hand
every Sunday; the one above the fish market ran on electricity and was always seven minutes ahead. Visitors found this
funny, but the people who lived there had long since learned to say which clock they meant. In 1987 a young engineer
called Marta Oliveira was asked to fix the problem. She measured both clocks for three weeks, wrote down 21 pairs of
numbers and came to a surprising conclusion: neither was wrong by a constant amount. The church clock lost time when it
was cold, because its pendulum shrank, and the market clock followed the power grid.

def difference(a, b):
    return [x - y for x, y in zip(a, b)]

"It would be cheaper," she told the council, "to teach everyone a little physics than to buy a new clock." They laughed,
and then they did exactly that."""

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = "What is the capital of France?"
TOKENS = 200
TOP = 64
GREEDY = 64


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape(tuple(int(d) for d in reversed(t.shape)))
            for t in reader.tensors
        }
        self.layers = self.fields["llama.block_count"]
        self.heads = self.fields["llama.attention.head_count"]
        self.kv_heads = self.fields["llama.attention.head_count_kv"]
        self.eps = self.fields["llama.attention.layer_norm_rms_epsilon"]
        self.head_dim = self.fields["llama.embedding_length"] // self.heads
        base = self.fields["llama.rope.freq_base"]
        self.frequencies = base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        self.cache = []  # per layer: keys and values [positions, kv_heads, head_dim]

    def tokenizer(self):
        tokens = self.fields["tokenizer.ggml.tokens"]
        merges = [tuple(m.split(" ")) for m in self.fields["tokenizer.ggml.merges"]]
        bpe = tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
        tokenizer = tokenizers.Tokenizer(bpe)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [tokenizers.pre_tokenizers.Digits(individual_digits=True), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        types = self.fields["tokenizer.ggml.token_type"]
        tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
        return tokenizer

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.weights[name + ".weight"]

    def rotate(self, x, positions):
        angles = positions[:, None] * self.frequencies  # [rows, head_dim / 2]
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = odd * cos + even * sin
        return out

    def attention(self, x, layer, positions):
        def project(name, heads):
            return (x @ self.weights[f"blk.{layer}.{name}.weight"].T).reshape(len(x), heads, self.head_dim)

        q = self.rotate(project("attn_q", self.heads), positions)
        k = self.rotate(project("attn_k", self.kv_heads), positions)
        v = project("attn_v", self.kv_heads)
        if len(self.cache) > layer:
            k = np.concatenate([self.cache[layer][0], k])
            v = np.concatenate([self.cache[layer][1], v])
            self.cache[layer] = (k, v)
        else:
            self.cache.append((k, v))
        hidden = np.arange(len(k))[None, :] > positions[:, None]
        out = np.empty_like(q)
        for head in range(self.heads):
            group = head // (self.heads // self.kv_heads)
            scores = q[:, head] @ k[:, group].T / np.sqrt(self.head_dim)
            scores[hidden] = -np.inf
            out[:, head] = np.exp(log_softmax(scores)) @ v[:, group]
        return out.reshape(len(x), -1) @ self.weights[f"blk.{layer}.attn_output.weight"].T

    def forward(self, tokens):
        """Logits of all of `tokens`, which follow what is in the cache."""
        past = len(self.cache[0][0]) if self.cache else 0
        positions = np.arange(past, past + len(tokens))
        x = self.weights["token_embd.weight"][tokens]
        for layer in range(self.layers):
            x = x + self.attention(self.norm(x, f"blk.{layer}.attn_norm"), layer, positions)
            n = self.norm(x, f"blk.{layer}.ffn_norm")
            gate = n @ self.weights[f"blk.{layer}.ffn_gate.weight"].T
            up = n @ self.weights[f"blk.{layer}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"blk.{layer}.ffn_down.weight"].T
        return self.norm(x, "output_norm") @ self.weights["token_embd.weight"].T

    def greedy(self, prompt, count):
        """Tokens, and the smallest lead of a best token over the second."""
        self.cache = []
        logits = self.forward(prompt)[-1]
        tokens, lead = [], np.inf
        for _ in range(count):
            best = np.sort(logits)[-2:]
            lead = min(lead, best[1] - best[0])
            tokens.append(int(logits.argmax()))
            logits = self.forward([tokens[-1]])[-1]
        return tokens, lead


def main():
    model = Model(sys.argv[1])
    tokenizer = model.tokenizer()
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids[:TOKENS]
    assert len(ids) == TOKENS, len(ids)
    logprobs = log_softmax(model.forward(ids))
    order = np.argsort(-logprobs, axis=-1)[:, :TOP]
    golden = {
        "source": "tools/golden_smollm2.py",
        "tokens": ids,
        "top_ids": order.tolist(),
        "top_logprobs": [rounded(logprobs[row, order[row]], 5) for row in range(TOKENS)],
    }
    golden["greedy_prompt"] = ids[:48]
    golden["greedy"], lead = model.greedy(ids[:48], GREEDY)
    print("greedy:", repr(tokenizer.decode(golden["greedy"])), "smallest lead", lead)

    chat = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    golden["chat_prompt"] = tokenizer.encode(chat, add_special_tokens=False).ids
    model.cache = []
    answer = log_softmax(model.forward(golden["chat_prompt"])[-1])
    golden["chat_first"] = {word: [tokenizer.token_to_id(word), round(float(answer[tokenizer.token_to_id(word)]), 5)] for word in ("The", "L")}
    golden["chat_greedy"], lead = model.greedy(golden["chat_prompt"], 8)
    print("chat:", golden["chat_first"], repr(tokenizer.decode(golden["chat_greedy"])), "smallest lead", lead)
    write_json(sys.argv[2], golden)


main()
