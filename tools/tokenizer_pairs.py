#!/usr/bin/env python3
"""Writes tests/data/tokenizer/pairs.jsonl: how the PyPI package `tokenizers` joins two texts and cuts them to a limit.

  tokenizer_pairs.py FOLDER     FOLDER holds NAME.tokenizer.json files, and receives pairs.jsonl
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer, processors

# Templates in place of those of the samples, whose form for pairs has no special tokens: BERT's and XLM-RoBERTa's.
TEMPLATES = {"bert_uncased": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"), "bert_cased": None, "roberta": None,
             "unigram": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"), "qwen35": None}
WORDS = ["a", "river", "Paris", "what", "is", "the", "capital", "of", "France?", "naïve", "中文", "<s>", "x" * 30, "12,345"]


def text(generator, words_max):
    return " ".join(generator.choice(WORDS) for _ in range(generator.randint(0, words_max)))


def pair(tokenizer, generator):
    first, second = text(generator, generator.choice([3, 12])), text(generator, generator.choice([3, 30]))
    added = tokenizer.num_special_tokens_to_add(True)
    limit = generator.choice([0, added + 1, added + 2, added + 7, added + 12, added + 33])
    if limit:
        tokenizer.enable_truncation(limit, strategy="longest_first")
    else:
        tokenizer.no_truncation()
    encoded = tokenizer.encode(first, second)
    return {"first": first, "second": second, "limit": limit, "ids": encoded.ids,
            "types": encoded.type_ids}


def main():
    folder = sys.argv[1]
    generator = random.Random(7)
    with open(os.path.join(folder, "pairs.jsonl"), "w", encoding="utf-8") as file:
        for name, template in TEMPLATES.items():
            tokenizer = Tokenizer.from_file(os.path.join(folder, f"{name}.tokenizer.json"))
            tokenizer.no_padding()
            if template:
                tokens = [(token, tokenizer.token_to_id(token)) for token in set(template[0].split()) - {"$A"}]
                tokenizer.post_processor = processors.TemplateProcessing(*template, special_tokens=sorted(tokens))
            start = {"tokenizer": name, "post_processor": json.loads(tokenizer.to_str())["post_processor"]}
            file.write(json.dumps(start, separators=(",", ":"), ensure_ascii=False) + "\n")
            for _ in range(50):
                file.write(json.dumps(pair(tokenizer, generator), separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
