#!/usr/bin/env python3
"""clang's -Wthread-safety over every source that uses base/mutex.h: thread_safety.py BUILD_DIR [clang++]

BUILD_DIR holds a compile_commands.json made with clang and without precompiled headers (`make thread-safety`).
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

HEADER = "base/mutex.h"


def uses_mutexes(source, root):
    """Whether a source or one of its own folder's headers that it includes names the header."""
    text = source.read_text(encoding="utf-8")
    if HEADER in text:
        return True
    included = (root / "src" / name for name in re.findall(r'#include "([^"]+)"', text))
    return any(path.exists() and HEADER in path.read_text(encoding="utf-8") for path in included)


def check(entry):
    words = shlex.split(entry["command"])
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("-o", "-c", "-MF", "-MT"):
            skip = word != "-c"
        elif word not in ("-MD",) and "ccache" not in word:
            kept.append(word)
    kept += ["-fsyntax-only", "-Wno-everything", "-Wthread-safety", "-Werror"]
    done = subprocess.run(kept, cwd=entry["directory"], capture_output=True, text=True)
    return entry["file"], done.returncode, done.stderr


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    entries = json.loads((pathlib.Path(sys.argv[1]) / "compile_commands.json").read_text())
    chosen = [e for e in entries if e["file"].endswith(".cc") and e["file"].startswith(f"{root}/src/")
              and uses_mutexes(pathlib.Path(e["file"]), root)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", os.cpu_count() or 1))) as pool:
        for file, code, output in pool.map(check, chosen):
            if code:
                failed += 1
                print(output, end="")
    print(f"thread safety: {len(chosen)} sources checked, {failed} with findings")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
