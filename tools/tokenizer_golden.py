#!/usr/bin/env python3
"""Compares Pensieve's tokenizers with the PyPI package `tokenizers` on thousands of hard strings.

  tokenizer_golden.py --tokenizer PATH --pensieve BINARY --strings N   compare; exit status 1 on any difference
  tokenizer_golden.py --tokenizer PATH --write FILE --strings N        write what the package says, as JSON lines
  tokenizer_golden.py --tokenizer MODEL.gguf --write-vocabulary FILE   the tokenizer part of a GGUF file as JSON

PATH is a tokenizer.json, a GGUF file, or a vocabulary written by --write-vocabulary. The binary is run as
`BINARY tokenize --model PATH --json --jsonl`: for each line {"text_b64": ...} on stdin it prints
{"ids": [...], "decoded_b64": ...}: ids with special tokens added and recognised, decoded with special tokens left out.

Needs: tokenizers; gguf for GGUF files.
"""
import argparse
import base64
import json
import random
import re
import subprocess
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tokenizer_strings import Strings

SEED = 20240229
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SUFFIX}"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = O200K.replace(SUFFIX, "").replace("{1,3}", "")
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Cased letters of the scripts that had case when DeepSeek-LLM was made.
DEEPSEEK_LETTERS = (r"\s?(?:(?![\x{560}\x{588}\x{10c7}-\x{10ff}\x{1c80}-\x{1c88}\x{2d00}-\x{2d2d}\x{a78f}-\x{a7ff}"
                    r"\x{ab30}-\x{ab6f}\x{10570}-\x{105bc}\x{16e40}-\x{16e7f}\x{1d400}-\x{1df2a}])"
                    r"[\p{Lu}\p{Ll}\p{Lt}])+")
DIGITS = "digits"  # the Digits pre-tokenizer
# pre -> (steps, ignore_merges, add_bos); tokenizer.json composes characters (NFC) for those of NFC.
PRE = {
    "llama-bpe": ([LLAMA3], True, True), "glm4": ([LLAMA3], False, False), "qwen2": ([QWEN2], False, False),
    "qwen35": ([QWEN35], False, False), "gpt-4o": ([O200K], False, False), "tekken": ([TEKKEN], True, True),
    "smollm": ([DIGITS, GPT2], False, False), "command-r": ([DIGITS, GPT2], False, False), "gpt-2": ([GPT2], False, False),
    "deepseek-v3": ([r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3], False, False),
    "deepseek-coder": ([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"], False, False),
    "deepseek-llm": ([r"[\r\n]", DEEPSEEK_LETTERS, "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"],
                     False, False),
    "falcon": ([r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], False, False),
    "default": ([r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], False, False),
}
NFC = {"qwen2", "qwen35", "command-r"}

FIELDS = {"model": "model", "pre": "pre", "tokens": "tokens", "scores": "scores", "token_type": "token_types",
          "merges": "merges", "bos_token_id": "bos_id", "eos_token_id": "eos_id", "unknown_token_id": "unk_id",
          "seperator_token_id": "sep_id", "padding_token_id": "pad_id", "cls_token_id": "cls_id",
          "add_bos_token": "add_bos", "add_eos_token": "add_eos", "add_space_prefix": "add_space_prefix"}


def read_gguf(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    out = {}
    for key, name in FIELDS.items():
        if f"tokenizer.ggml.{key}" in fields:
            out[name] = fields[f"tokenizer.ggml.{key}"].contents()
    return out


def byte_level_tokenizer(vocabulary):
    steps, ignore_merges, add_bos = PRE[vocabulary.get("pre", "default")]
    merges = [tuple(line.split(" ")) for line in vocabulary["merges"]]
    tokens = {token: i for i, token in enumerate(vocabulary["tokens"])}
    tokenizer = Tokenizer(models.BPE(tokens, merges, ignore_merges=ignore_merges))
    chain = [pre_tokenizers.Digits(individual_digits=True) if step is DIGITS
             else pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    chain.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(chain)
    if vocabulary.get("pre") in NFC:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, add_bos


def scored_tokenizer(vocabulary):
    """SentencePiece's BPE as ranked merges: every way to cut a token in two, best score first."""
    tokens = {token: i for i, token in enumerate(vocabulary["tokens"])}
    types = vocabulary["token_types"]
    mergeable = {token for token, i in tokens.items() if types[i] in (1, 4)}
    merges = []
    for token in mergeable:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in mergeable and right in mergeable:
                merges.append((-vocabulary["scores"][tokens[token]], len(merges), left, right))
    merges.sort()
    tokenizer = Tokenizer(models.BPE(tokens, [(left, right) for _, _, left, right in merges], byte_fallback=True,
                                     unk_token=vocabulary["tokens"][vocabulary["unk_id"]], fuse_unk=True))
    prefix = vocabulary.get("add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence(
        ([normalizers.Prepend("▁")] if prefix else []) + [normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return tokenizer, True


def wordpiece_tokenizer(vocabulary):
    tokens = {}
    for i, (token, kind) in enumerate(zip(vocabulary["tokens"], vocabulary["token_types"])):
        if kind == 1 and not (token.startswith("[") and token.endswith("]")):
            token = token[1:] if token.startswith("▁") else "##" + token
        tokens[token] = i
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    cased = any(re.search("[A-Z]", token) for token in tokens if not token.startswith("["))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", tokens["[CLS]"]), ("[SEP]", tokens["[SEP]"])])
    return tokenizer, False


def gguf_tokenizer(vocabulary):
    """The tokenizer that the Hugging Face files of the same model would describe."""
    build = {"gpt2": byte_level_tokenizer, "llama": scored_tokenizer, "bert": wordpiece_tokenizer}[vocabulary["model"]]
    tokenizer, add_bos = build(vocabulary)
    added = [AddedToken(token, normalized=False, special=kind in (2, 3))
             for token, kind in zip(vocabulary["tokens"], vocabulary["token_types"]) if kind in (2, 3, 4)]
    tokenizer.add_tokens(added)
    if vocabulary.get("add_bos", add_bos) and vocabulary.get("bos_id") is not None:
        bos = vocabulary["tokens"][vocabulary["bos_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary["bos_id"])])
    return tokenizer


def load(path):
    if path.endswith(".gguf"):
        return gguf_tokenizer(read_gguf(path))
    text = open(path, encoding="utf-8").read()
    if path.endswith(".vocabulary.json"):
        return gguf_tokenizer(json.loads(text))
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def b64(data):
    return base64.b64encode(data).decode()


def expected(tokenizer, data):
    """What the package answers; plain_ids and decoded_all_b64 are left out where they equal ids and decoded_b64."""
    text = data.decode("utf-8", "replace")
    ids = tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    line = {"text_b64": b64(data), "ids": ids, **expected_text(tokenizer, ids)}
    return line if plain == ids else {**line, "plain_ids": plain}


def expected_text(tokenizer, ids):
    decoded, decoded_all = tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)
    line = {"decoded_b64": b64(decoded.encode())}
    return line if decoded == decoded_all else {**line, "decoded_all_b64": b64(decoded_all.encode())}


def expected_random(tokenizer, generator):
    size = tokenizer.get_vocab_size()
    ids = [generator.randrange(size) for _ in range(generator.randint(0, 30))]
    return {"random_ids": ids, **expected_text(tokenizer, ids)}


def write(tokenizer, path, count, seed=SEED):
    generator = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for data in Strings(seed).make(count):
            file.write(json.dumps(expected(tokenizer, data), separators=(",", ":")) + "\n")
        for _ in range(count // 10):
            file.write(json.dumps(expected_random(tokenizer, generator), separators=(",", ":")) + "\n")


def compare(tokenizer, path, binary, count, seed):
    texts = Strings(seed).make(count)
    stdin = "".join(json.dumps({"text_b64": b64(data)}) + "\n" for data in texts)
    run = subprocess.run([binary, "tokenize", "--model", path, "--json", "--jsonl"], input=stdin, capture_output=True,
                         text=True, check=True)
    lines = run.stdout.splitlines()
    if len(lines) != len(texts):
        print(f"{path}: {len(lines)} answers to {len(texts)} strings: {run.stderr.strip()}")
        return 1
    different = 0
    for data, line in zip(texts, lines):
        want, got = expected(tokenizer, data), json.loads(line)
        for key in ("ids", "decoded_b64"):
            if want[key] != got[key]:
                different += 1
                if different <= 10:
                    print(f"{path}: {data!r}: {key} {got[key]}, the package says {want[key]}")
                break
    print(f"{path}: {len(texts) - different} of {len(texts)} strings equal")
    return 1 if different else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--pensieve")
    parser.add_argument("--strings", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write")
    parser.add_argument("--write-vocabulary")
    args = parser.parse_args()
    if args.write_vocabulary:
        with open(args.write_vocabulary, "w", encoding="utf-8") as file:
            json.dump(read_gguf(args.tokenizer), file, ensure_ascii=False)
        return 0
    tokenizer = load(args.tokenizer)
    if args.write:
        write(tokenizer, args.write, args.strings, args.seed)
        return 0
    if not args.pensieve:
        parser.error("--pensieve or --write is needed")
    return compare(tokenizer, args.tokenizer, args.pensieve, args.strings, args.seed)


if __name__ == "__main__":
    sys.exit(main())
