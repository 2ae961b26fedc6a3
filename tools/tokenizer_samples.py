#!/usr/bin/env python3
"""Makes the small tokenizers of tests/data/tokenizer, one for each style of real ones, and their golden files.

Usage: tokenizer_samples.py tests/data/tokenizer. Needs: tokenizers, sentencepiece. Training may order ties differently
from run to run, so the files in the repository are what counts; this script says how they came about.
"""
import base64
import io
import json
import os
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_golden as golden
from tokenizer_strings import WORDS, Strings

GOLDEN_STRINGS = 200
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def corpus():
    strings = Strings(5)
    lines = [" ".join(WORDS[i:i + 9]) for i in range(0, len(WORDS), 3)]
    lines += [strings.mixture().decode("utf-8", "replace") for _ in range(300)]
    return [line.replace("\x00", "") for line in lines]


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def template(single, **ids):
    return processors.TemplateProcessing(single=single, special_tokens=[(k, v) for k, v in ids.items()])


def train_bpe(size, pre_tokenizer=None, normalizer=None, alphabet=(), tokens=(), **options):
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), special_tokens=list(tokens),
                                  show_progress=False, limit_alphabet=500, max_token_length=16, **options)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def metaspace_bpe(prepend, **options):
    steps = ([normalizers.Prepend("▁")] if prepend else []) + [normalizers.Replace(" ", "▁")]
    vocab, merges = train_bpe(1500, pre_tokenizers.Metaspace(split=True),
                              tokens=["<unk>", "<s>", "</s>"] + BYTES)
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", **options))
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def llama2():
    tokenizer = metaspace_bpe(True, fuse_unk=True)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([special("<unk>"), special("<s>"), special("</s>")])
    tokenizer.add_tokens([AddedToken("fox jumps", normalized=True)])
    tokenizer.post_processor = template("<s> $A", **{"<s>": 1})
    return tokenizer


def phi3():
    tokenizer = metaspace_bpe(True, fuse_unk=True)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([special("<unk>"), special("<s>"), special("</s>", rstrip=True), special("<|endoftext|>")])
    tokenizer.add_tokens([special(t, rstrip=True) for t in ("<|assistant|>", "<|end|>", "<|user|>")])
    return tokenizer


def gemma():
    tokenizer = metaspace_bpe(False, fuse_unk=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([special(t) for t in ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<mask>")])
    tokenizer.post_processor = template("<bos> $A", **{"<bos>": tokenizer.token_to_id("<bos>")})
    return tokenizer


def byte_level(pattern, size=1100, **options):
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    vocab, merges = train_bpe(size, split, alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab, merges, **options))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama3():
    tokenizer = byte_level(golden.LLAMA3)
    model = json.loads(tokenizer.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    for word in ("Ġworld", "Hello", "Ð¼Ð¸ÑĢ", "ĠĠĠĠĠ"):  # reachable only past the merges
        vocab.setdefault(word, len(vocab))
    tokenizer.model = models.BPE(vocab, merges, ignore_merges=True)
    tokenizer.add_tokens([special(t) for t in ("<|begin_of_text|>", "<|eot_id|>", "<|end|>")])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|> $A", **{"<|begin_of_text|>": begin})])
    return tokenizer


def o200k():
    tokenizer = byte_level(golden.O200K)
    tokenizer.add_tokens([special(t) for t in ("<|endoftext|>", "<|end|>", "<|user|>")])
    return tokenizer


def qwen():
    tokenizer = byte_level(golden.QWEN35)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>", "<tool_call>")])
    tokenizer.post_processor = template("$A <|endoftext|>",
                                        **{"<|endoftext|>": tokenizer.token_to_id("<|endoftext|>")})
    return tokenizer


def deepseek():
    tokenizer = byte_level(golden.DEEPSEEK3)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(golden.DEEPSEEK3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tokenizer


def roberta():
    """GPT-2's own pattern with a prefix space; added tokens that strip, stand alone, and are normalized."""
    vocab, merges = train_bpe(900, pre_tokenizers.ByteLevel(), alphabet=pre_tokenizers.ByteLevel.alphabet(),
                              tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([special(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] + [special("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("ADDED", single_word=True), AddedToken("<extra>", lstrip=True, rstrip=True),
                          AddedToken("«tok»", normalized=False, single_word=True), AddedToken("HTTP", normalized=True),
                          AddedToken("$var", special=True, normalized=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return tokenizer


def bert(cased):
    normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(
        vocab_size=1300, limit_alphabet=300, special_tokens=tokens, show_progress=False))
    tokenizer.decoder = decoders.WordPiece(cleanup=not cased)
    tokenizer.post_processor = (processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)) if cased
                                else template("[CLS] $A [SEP]", **{"[CLS]": 2, "[SEP]": 3}))
    return tokenizer


def unigram():
    """XLM-R and T5: Metaspace and Unigram."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "),
                                                 normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(corpus(), trainers.UnigramTrainer(
        vocab_size=1400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_tokens([special("<mask>", lstrip=True)])
    tokenizer.post_processor = template("<s> $A </s>", **{"<s>": 0, "</s>": 2})
    return tokenizer


def train_sentencepiece(kind, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=model, model_type=kind,
                                             minloglevel=2, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), model.getvalue()


def charsmap():
    """SentencePiece's compiled form of a few rules."""
    rules = "/tmp/rules.tsv"
    with open(rules, "w", encoding="utf-8") as file:
        for source, target in (("ﬁ", "fi"), ("ﬂ", "fl"), ("é", "e"), ("e\u0301", "é"), ("\u3000", " "),
                               ("\u00a0", " "), ("Ａ", "A"), ("ａ", "a"), ("①", "1"), ("㍿", "株式会社"),
                               ("\u200b", ""), ("가", "ka"), ("\t", " "), ("\n", " "), ("👍", "+1"), ("각", "gag"),
                               ("क", "ka")):
            file.write("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in (source, target)) + "\n")
    _, proto = train_sentencepiece("bpe", vocab_size=1100, normalization_rule_tsv=rules, character_coverage=0.98)
    os.remove(rules)
    from sentencepiece import sentencepiece_model_pb2
    message = sentencepiece_model_pb2.ModelProto()
    message.ParseFromString(proto)
    return message.normalizer_spec.precompiled_charsmap


def precompiled():
    tokenizer = unigram()
    tree = json.loads(tokenizer.to_str())
    tree["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap()).decode()},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]}
    tree["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tree["model"]["byte_fallback"] = False
    return Tokenizer.from_str(json.dumps(tree))


def clip():
    """End-of-word suffixes show where words end."""
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab, merges = train_bpe(1400, split, alphabet=alphabet, end_of_word_suffix="</w>")
    for character in alphabet:
        vocab.setdefault(character + "</w>", len(vocab))
    vocab["<|endoftext|>"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                                 normalizers.Lowercase()])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.BPEDecoder()
    tokenizer.add_tokens([special("<|endoftext|>")])
    return tokenizer


def prefix_bpe():
    """Continuing prefixes, unk that is not fused, and pieces of every split behaviour."""
    split = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\d+"), "contiguous"), pre_tokenizers.Split(",", "merged_with_next"),
        pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.CharDelimiterSplit("e"),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Whitespace()])
    vocab, merges = train_bpe(900, split, continuing_subword_prefix="##", tokens=["[UNK]"])
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents(),
                                                 normalizers.Replace(Regex("(ab)+"), "AB")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                                       pre_tokenizers.Punctuation("contiguous")])
    tokenizer.train_from_iterator(corpus(), trainers.WordLevelTrainer(
        vocab_size=1500, special_tokens=["[UNK]"], show_progress=False))
    return tokenizer


def gguf_llama():
    processor, _ = train_sentencepiece("bpe", vocab_size=1500, byte_fallback=True, character_coverage=0.98,
                                       user_defined_symbols=["<tool_call>", "<think>"], control_symbols=["<|user|>"],
                                       normalization_rule_name="identity", remove_extra_whitespaces=False)
    count = processor.get_piece_size()
    kinds = [2 if processor.is_unknown(i) else 6 if processor.is_byte(i) else 3 if processor.is_control(i)
             else 4 if processor.id_to_piece(i) in ("<tool_call>", "<think>") else 1 for i in range(count)]
    return {"model": "llama", "tokens": [processor.id_to_piece(i) for i in range(count)],
            "scores": [processor.get_score(i) for i in range(count)], "token_types": kinds, "bos_id": 1, "eos_id": 2,
            "unk_id": 0, "add_bos": True}


def gguf_gemma():
    """Gemma's: no space in front of the text."""
    return {**gguf_llama(), "add_space_prefix": False}


def gguf_gpt2(pre):
    steps, _, _ = golden.PRE[pre]
    tokenizer = byte_level(golden.LLAMA3 if steps[0] is golden.DIGITS else steps[-1])
    model = json.loads(tokenizer.to_str())["model"]
    added = {"<|endoftext|>": 3, "<|im_start|>": 3, "<think>": 4}
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [token for token in added if token not in model["vocab"]]
    kinds = [added.get(token, 1) for token in tokens]
    return {"model": "gpt2", "pre": pre, "tokens": tokens, "token_types": kinds,
            "merges": [" ".join(pair) for pair in model["merges"]], "bos_id": tokens.index("<|im_start|>"),
            "eos_id": tokens.index("<|endoftext|>")}


def gguf_bert(cased=False):
    vocab = bert(cased).get_vocab()
    tokens = [t[2:] if t.startswith("##") else t if t.startswith("[") and len(t) > 2 else "▁" + t
              for t in sorted(vocab, key=vocab.get)]
    kinds = [3 if t in ("[PAD]", "[CLS]", "[SEP]", "[MASK]") else 2 if t == "[UNK]" else 1 for t in tokens]
    return {"model": "bert", "tokens": tokens, "token_types": kinds, "cls_id": 2, "sep_id": 3, "unk_id": 1, "pad_id": 0}


TOKENIZERS = {
    "llama2": llama2, "phi3": phi3, "gemma": gemma, "llama3": llama3, "o200k": o200k, "qwen35": qwen,
    "deepseek": deepseek, "roberta": roberta, "bert_uncased": lambda: bert(False), "bert_cased": lambda: bert(True),
    "unigram": unigram, "precompiled": precompiled, "clip": clip, "prefix_bpe": prefix_bpe, "word_level": word_level}
VOCABULARIES = {"gguf_llama": gguf_llama, "gguf_gemma": gguf_gemma, "gguf_bert": gguf_bert,
                "gguf_bert_cased": lambda: gguf_bert(True),
                **{f"gguf_{pre}": (lambda pre=pre: gguf_gpt2(pre)) for pre in
                   ("smollm", "llama-bpe", "tekken", "falcon", "deepseek-coder", "deepseek-llm", "gpt-4o", "default",
                    "qwen2", "command-r")}}


def main():
    folder = sys.argv[1]
    wanted = sys.argv[2:] or list(TOKENIZERS) + list(VOCABULARIES)
    for name in wanted:
        if name in TOKENIZERS:
            path = os.path.join(folder, f"{name}.tokenizer.json")
            text = TOKENIZERS[name]().to_str()
        else:
            path = os.path.join(folder, f"{name}.vocabulary.json")
            text = json.dumps(VOCABULARIES[name](), ensure_ascii=False, separators=(",", ":"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        golden.write(golden.load(path), os.path.join(folder, f"{name}.golden.jsonl"), GOLDEN_STRINGS)
        print(path, os.path.getsize(path))


if __name__ == "__main__":
    main()
