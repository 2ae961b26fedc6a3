"""The shape of src/: who may include whom, and how large things may be."""
import re

import pytest

from harness import ROOT

SRC = ROOT / "src"
# Each folder may include those behind it, and base. From top to bottom, as ARCHITECTURE.md has it.
LAYERS = [
    "apps", "cli", "http", "grpc", "api", "service", "chat", "engine", "sampling", "model", "tokenizer", "hub",
    "formats", "backend", "tensor", "config", "observe", "base"
]
FILE_LINES_MAX = 800
# Headers of libraries stay inside the folder that adapts them.
ADAPTERS = {
    "boost/": {"http"}, "grpc": {"grpc"}, "google/protobuf": {"grpc"}, "prometheus/": {"observe"},
    "spdlog/": {"observe"}, "toml++/": {"config"}, "curl/": {"hub"}, "openssl/": {"hub", "http"}, "zlib.h": {"hub"},
    "pcre2.h": {"tokenizer"}, "unicode/": {"tokenizer"}, "utf8proc.h": {"tokenizer",
                                                                        "chat"}, "CLI/": {"cli"}, "nlohmann/": {"base"},
}


def sources(*endings):
    return sorted(path for path in SRC.rglob("*") if path.suffix in endings)


def folder(path):
    return path.relative_to(SRC).parts[0]


def includes(path):
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.M)


def test_folders_are_known():
    found = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.iterdir())}
    assert found <= set(LAYERS)
    assert {"service", "engine", "http"} <= found


def test_includes_go_down():
    wrong = []
    for path in sources(".h", ".cc", ".inc"):
        for kind, name in includes(path):
            target = name.split("/")[0]
            if kind == "<" or "/" not in name or target not in LAYERS:
                continue
            mine = folder(path)
            if target not in (mine, "base") and LAYERS.index(target) <= LAYERS.index(mine):
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong, "\n".join(wrong)


def test_included_files_exist():
    """Paths start at src/, so that a reader knows where a header lies."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}" for path in sources(".h", ".cc", ".inc") for kind, name in includes(path)
        if kind == '"' and ("/" not in name or name.split("/")[0] in LAYERS) and not (SRC / name).exists()
    ]
    assert not wrong, "\n".join(wrong)


def test_headers_are_guarded():
    wrong = [str(path) for path in sources(".h") if "#pragma once" not in path.read_text(encoding="utf-8")]
    assert not wrong, "\n".join(wrong)


def test_files_are_not_too_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(".h", ".cc")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert not long


@pytest.mark.parametrize("library", ADAPTERS)
def test_libraries_stay_in_their_adapters(library):
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}" for path in sources(".h") for kind, name in includes(path)
        if kind == "<" and name.startswith(library) and folder(path) not in ADAPTERS[library]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_throws_in_our_code():
    """Tests may: they show that what libraries throw ends where it should."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}" for path in sources(".h", ".cc")
        if not path.stem.endswith(("_test", "_fixture"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bthrow\b",
                     line.split("//")[0]) and '"' not in line
    ]
    assert not wrong, "\n".join(wrong)


def is_of_tests(path):
    """Tests, benchmarks, and headers that nothing else includes."""
    if path.suffix == ".cc":
        return path.stem.endswith(("_test", "_bench"))
    line = f'#include "{path.relative_to(SRC)}"'
    users = [other for other in sources(".h", ".cc") if line in other.read_text(encoding="utf-8")]
    return bool(users) and all(is_of_tests(user) for user in users)


def test_the_environment_is_read_in_one_place():
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources(".h", ".cc")
        if folder(path) != "config"
        and re.search(r"\bgetenv\s*\(", path.read_text(encoding="utf-8")) and not is_of_tests(path)
    ]
    assert not wrong, "\n".join(wrong)


DIALECTS = sorted(path.name for path in (SRC / "api").iterdir() if (path / "dialect.h").exists())


def test_dialects_are_rows():
    """A dialect is a folder and an entry of one table: nothing else in api/ or http/ names one, and none another's."""
    assert {"anthropic", "openai", "ollama", "akidb"} <= set(DIALECTS)
    table = SRC / "api" / "dialects.cc"
    assert sorted(re.findall(r"&(\w+)::kDialect", table.read_text(encoding="utf-8"))) == DIALECTS
    wrong = []
    for path in sources(".h", ".cc"):
        if path == table or path.stem.endswith("_test") or folder(path) not in ("api", "http"):
            continue
        parts = path.relative_to(SRC).parts
        text = "\n".join(line.split("//")[0] for line in path.read_text(encoding="utf-8").splitlines())
        for dialect in DIALECTS:
            mine = parts[:2] == ("api", dialect)
            if not mine and re.search(rf"\b{dialect}::|api/{dialect}/", text):
                wrong.append(f"{path.relative_to(ROOT)} names {dialect}")
    assert not wrong, "\n".join(wrong)


def test_dialects_only_translate():
    """No thread, socket or file in a dialect's folder: it turns values into values."""
    forbidden = re.compile(r"#include <(thread|fstream|filesystem|sys/.*|boost/.*)>|\bco_await\b|std::thread")
    wrong = [
        str(path.relative_to(ROOT)) for path in sources(".h", ".cc")
        if folder(path) == "api" and not path.stem.endswith("_test")
        and forbidden.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong
