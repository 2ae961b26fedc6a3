#!/usr/bin/env python3
"""Holds the sources to the sizes of STYLE.md: check_sizes.py FILE...

A function is at most 70 lines, a file 800. Sources are in clang-format's shape (tools/lint.sh checks that first), so a
function's body ends with the brace in its first line's column.
"""
import re
import sys

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
# Tables written as code, and lists of cases of tests: long, but with nothing to follow.
TABLES = ("Architectures(", "AddServerKeys(", "AddModelKeys(")
TESTS_LINES_MAX = 100
# Kernels whose phases share registers, and one function that is to be cut: no longer than they are.
KNOWN = {"AttendPiece(": 105, "AttendPrompt(": 130, "AttendRow(": 310, "CudaBackend::BeginStep(": 100,
         "RunTiles(": 90, "PlaneProduct": 90, "MakeOwnPlanes(": 80}
NOT_FUNCTIONS = re.compile(r"\s*(namespace|class|struct|enum|union|extern|if|for|while|switch|do|else|try|case|default)\b")


def functions(lines):
    """(first line, number of lines) of every function that has a body of its own lines."""
    start = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if start is None and line.rstrip().endswith("{") and not NOT_FUNCTIONS.match(line):
            head = number
            # A head may be broken over several lines: its first one has the smallest indent above.
            while head > 0 and len(lines[head]) - len(lines[head].lstrip()) > indent_of_head(lines, head):
                head -= 1
            indent = len(lines[head]) - len(lines[head].lstrip())
            text = " ".join(lines[head:number + 1])
            if "(" in text and not NOT_FUNCTIONS.match(lines[head]) and "= {" not in text:
                start = (head, indent)
        elif start is not None and line.startswith(" " * start[1] + "}") and indent == start[1]:
            yield start[0] + 1, number - start[0] + 1
            start = None


def indent_of_head(lines, number):
    """The indent of the statement that the line belongs to: 4 more columns mark a continuation."""
    indent = len(lines[number]) - len(lines[number].lstrip())
    above = number - 1
    while above >= 0 and lines[above].strip():
        before = len(lines[above]) - len(lines[above].lstrip())
        if before < indent:
            return before if not lines[above].rstrip().endswith((";", "}", "{", ":")) else indent
        above -= 1
    return indent


def problems(path):
    lines = open(path, encoding="utf-8").read().split("\n")
    if len(lines) - 1 > FILE_LINES_MAX:
        yield 1, f"the file has {len(lines) - 1} lines, at most {FILE_LINES_MAX} are readable"
    for first, count in functions(lines):
        head = " ".join(lines[first - 1:first + 4])
        if count > lines_max(path, head):
            yield first, f"the function has {count} lines, at most {FUNCTION_LINES_MAX} fit a screen"


def lines_max(path, head):
    if any(name in head for name in TABLES):
        return FILE_LINES_MAX
    known = [most for name, most in KNOWN.items() if name in head]
    return known[0] if known else TESTS_LINES_MAX if path.endswith("_test.cc") else FUNCTION_LINES_MAX


def main():
    found = 0
    for path in sys.argv[1:]:
        for line, problem in problems(path):
            print(f"{path}:{line}: {problem}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
