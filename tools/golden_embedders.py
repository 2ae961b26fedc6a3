#!/usr/bin/env python3
"""Tiny random embedders as the newest sentence-transformers and transformers save them, and what those
packages answer: vectors in float64. Needs torch, transformers and sentence-transformers.

  golden_embedders.py tests/data/models      writes the models and embedders_golden.json beside them
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from golden_common import rounded, write_json

TEXTS = ["a river", "The Cat sat on 3 mats.", "b", "what is the capital of france and of every other country"]
LIMIT = 24
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?"


def wordpiece():
    """BERT's, one token a letter."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(LETTERS) + ["##" + c for c in LETTERS]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    return transformers.BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT)


def letters(specials, template, pair, **names):
    """One token a letter and `specials` before them."""
    tokens = specials + [" "] + list(LETTERS) + list(LETTERS[:26].upper())
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token=names["unk_token"]))
    tokenizer.decoder = decoders.Fuse()
    used = [(t, tokens.index(t)) for t in specials if f"{t} " in f"{template} {pair} "]
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(template, pair, used)
    tokenizer.add_special_tokens(specials)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT, **names)


def modern_letters():
    return letters(["[UNK]", "[CLS]", "[SEP]", "[PAD]"], "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", unk_token="[UNK]",
                   cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")


def qwen_letters(close):
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no", "\n", "<think>", "</think>"]
    return letters(specials, "$A <|endoftext|>" if close else "", "$A $B <|endoftext|>" if close else "",
                   unk_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 48}


def randomize(model, seed):
    """Weights of a size at which every part of the network shows in the answer."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_scale = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = 1 + 0.2 * noise if is_scale else (0.3 if parameter.dim() == 1 else 0.25) * noise
    return model.float().eval()


def save_network(path, model, tokenizer):
    shutil.rmtree(path, ignore_errors=True)
    model.half().save_pretrained(path)
    tokenizer.save_pretrained(path)


def keep_files(path):
    for name in ("README.md", "special_tokens_map.json"):
        (path / name).unlink(missing_ok=True)


def embedder(path, model, tokenizer, modules):
    save_network(path, model, tokenizer)
    SentenceTransformer(modules=[Transformer(str(path)), *modules], device="cpu").half().save(str(path))
    keep_files(path)
    whole = SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": torch.float32}).double()
    vectors = whole.encode(TEXTS, convert_to_numpy=True)
    assert np.abs(whole.encode(TEXTS[0], convert_to_numpy=True) - vectors[0]).max() < 1e-9
    return {"texts": TEXTS, "vectors": [rounded(v, 7) for v in vectors], "limit": whole.max_seq_length}


def qwen3(**config):
    shape = {**SMALL, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "rope_theta": 1e6, **config}
    return transformers.Qwen3Config(**shape)


def make_models(folder):
    bert = dict(vocab_size=5 + 2 * len(LETTERS), **SMALL)
    yield "tiny-st-bert", embedder(
        folder / "tiny-st-bert", randomize(transformers.BertModel(transformers.BertConfig(**bert)), 1), wordpiece(),
        [Pooling(32, "cls"), Normalize()])
    yield "tiny-nomic-bert", embedder(
        folder / "tiny-nomic-bert", randomize(transformers.NomicBertModel(transformers.NomicBertConfig(**bert)), 4),
        wordpiece(), [Pooling(32, "mean")])
    modern = dict(vocab_size=4 + 1 + len(LETTERS) + 26, local_attention=8, pad_token_id=3, cls_token_id=1, sep_token_id=2,
                  bos_token_id=1, eos_token_id=2, **{**SMALL, "num_hidden_layers": 4})
    yield "tiny-modernbert", embedder(
        folder / "tiny-modernbert", randomize(transformers.ModernBertModel(transformers.ModernBertConfig(**modern)), 5),
        modern_letters(), [Pooling(32, "mean")])
    qwen_vocab = 8 + 1 + len(LETTERS) + 26
    yield "tiny-qwen3-embedding", embedder(
        folder / "tiny-qwen3-embedding", randomize(transformers.Qwen3Model(qwen3(vocab_size=qwen_vocab)), 9),
        qwen_letters(True), [Pooling(32, "lasttoken"), Normalize()])


def main():
    folder = pathlib.Path(sys.argv[1])
    wanted = set(sys.argv[2:])
    golden = {name: answer for name, answer in make_models(folder) if not wanted or name in wanted}
    write_json(folder / "embedders_golden.json", {"source": "tools/golden_embedders.py", "models": golden})


if __name__ == "__main__":
    main()
