#!/usr/bin/env python3
"""Measures the Unicode behaviour of the PyPI package `tokenizers` and writes src/tokenizer/unicode_tables.inc.

Needs: tokenizers, regex. Usage: tokenizer_unicode.py src/tokenizer/unicode_tables.inc
"""
import sys
import unicodedata

import regex
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, ALL))
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf Co".split()


def matched(pattern):
    """The code points that the package's regular expressions match."""
    rest = normalizers.Replace(Regex(pattern), "").normalize_str(TEXT)
    return set(ALL) - set(map(ord, rest))


def dropped(normalizer):
    return {c for c in ALL if normalizer.normalize_str(chr(c)) == ""}


def split_off(pre_tokenizer):
    return {c for c in ALL if len(pre_tokenizer.pre_tokenize_str("a" + chr(c) + "a")) == 3}


def word_characters():
    whitespace = pre_tokenizers.Whitespace()
    return {c for c in ALL if len(whitespace.pre_tokenize_str("a" + chr(c) + "a")) == 1}


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def lowercase_runs():
    """(first, last, stride, delta) and the mappings to more than one character."""
    lower = normalizers.Lowercase()
    single, multiple = {}, {}
    for c in ALL:
        mapped = lower.normalize_str(chr(c))
        if mapped != chr(c):
            (single if len(mapped) == 1 else multiple)[c] = mapped
    runs = []
    for c in sorted(single):
        delta = ord(single[c]) - c
        if runs and runs[-1][3] == delta:
            first, last, stride, _ = runs[-1]
            step = c - last
            if (first == last and step in (1, 2)) or step == stride:
                runs[-1] = (first, c, step, delta)
                continue
        runs.append((c, c, 1, delta))
    assert set(multiple) == {0x130}, multiple
    return runs


def utf8_length(c):
    return len(chr(c).encode())


def proxies():
    """Code points whose category in the package differs from Unicode 14's, with a stand-in of the same length."""
    category = {}
    for name in CATEGORIES:
        for c in matched(r"\p{%s}" % name):
            category[c] = name
    old = {c: unicodedata.category(chr(c)) for c in ALL}
    stable = {}
    for c in ALL:
        if old[c] == category.get(c) and c >= 0x370:
            stable.setdefault((old[c], utf8_length(c)), c)
    out = []
    for c in ALL:
        name = category.get(c, "Cn")
        if name == old[c] or (name == "Cn" and old[c] in ("Cc", "Cs")):
            continue
        key = (name, utf8_length(c))
        if name == "Cn" or key not in stable:
            print(f"no proxy for U+{c:04X}: {name}, was {old[c]}", file=sys.stderr)
            continue
        out.append((c, stable[key]))
    runs = []
    for c, proxy in out:
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == proxy:
            runs[-1][1] = c
        else:
            runs.append([c, c, proxy])
    # PCRE2 counts the Mongolian vowel separator as \s; it is a format character like U+200B.
    runs.append([0x180E, 0x180E, 0x200B])
    return sorted(runs)


def undecomposed():
    """Characters that newer Unicode versions decompose and the package's older tables don't."""
    # Versions 15 to 17, which unicodedata of Python 3.11 (Unicode 14) does not know.
    out = set(range(0x1E030, 0x1E06E)) | set(range(0x16121, 0x16129)) | set(range(0x16D68, 0x16D6B))
    out |= set(range(0x1CCD6, 0x1CCFA)) | {0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7}
    out |= {0x113C8, 0xA7F1}
    for form in ("NFD", "NFKD"):
        normalizer = getattr(normalizers, form)()
        for c in ALL:
            if normalizer.normalize_str(chr(c)) != unicodedata.normalize(form, chr(c)):
                out.add(c)
    return out


def unordered_marks():
    """Combining marks with a class that the package treats as starters, being newer than its tables."""
    nfd = normalizers.NFD()
    out = set()
    for c in map(ord, regex.findall(r"\P{ccc=0}", TEXT)):
        after_high, before_low = "a\u0345" + chr(c), "a" + chr(c) + "\u0334"
        if nfd.normalize_str(after_high) == after_high and nfd.normalize_str(before_low) == before_low:
            if c not in (0x334, 0x335, 0x336, 0x337, 0x338, 0x345):
                out.add(c)
    return out


def write_rows(file, rows):
    line = " "
    for row in rows:
        item = " {" + ", ".join(f"0x{v:X}" if v >= 0 else f"-0x{-v:X}" for v in row) + "},"
        if len(line) + len(item) > 120:
            file.write(line + "\n")
            line = " "
        line += item
    file.write(line + "\n")


def main():
    bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True,
                                         lowercase=False)
    sets = [
        ("kNumeric", split_off(pre_tokenizers.Digits(individual_digits=True))),
        ("kWord", word_characters()),
        ("kPunctuation", split_off(pre_tokenizers.Punctuation())),
        ("kMark", dropped(normalizers.StripAccents())),
        ("kNonspacingMark", dropped(accents)),
        ("kBertControl", dropped(bert)),
    ]
    sets.append(("kDecomposesElsewhere", undecomposed()))
    sets.append(("kStarterHere", unordered_marks()))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(f"// Written by tools/tokenizer_unicode.py from tokenizers {tokenizers.__version__}. Do not edit.\n")
        for name, points in sets:
            file.write(f"constexpr CodeRange {name}[] = {{\n")
            write_rows(file, ranges(points))
            file.write("};\n")
        file.write("constexpr LowercaseRun kLowercase[] = {\n")
        write_rows(file, lowercase_runs())
        file.write("};\nconstexpr ProxyRange kProxies[] = {\n")
        write_rows(file, proxies())
        file.write("};\n")


if __name__ == "__main__":
    main()
