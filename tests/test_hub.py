"""pull, list, rm and models by name, against a small hub on loopback that behaves and misbehaves."""
import errno
import json
import os
import pty
import re
import resource
import signal
import subprocess
import threading
import time

import pytest

from harness import BINARY, DATA, clean_environment, run, wait_for
from hub_server import HubServer, sha256

MODELS = DATA / "models"
DEAD = "http://127.0.0.1:9"


def directory(name):
    return {
        str(path.relative_to(MODELS / name)): path.read_bytes()
        for path in sorted((MODELS / name).rglob("*")) if path.is_file()
    }


REPOS = {
    "tiny/llama": {
        **directory("tiny-llama"), "README.md": b"# tiny", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x"
    },
    "tiny/qwen3": directory("tiny-qwen3"),
    "tiny/bert": directory("tiny-bert"),
    "tiny/gguf": {
        "README.md": b"x", "tiny-Q8_0.gguf": (MODELS / "tiny-llama-q8_0.gguf").read_bytes(),
        "tiny-Q4_1.gguf": (MODELS / "tiny-llama-q4_1.gguf").read_bytes()
    },
}


@pytest.fixture
def hub():
    with HubServer({repo: dict(files) for repo, files in REPOS.items()}) as server:
        yield server


class Home:
    """A user with empty caches."""

    def __init__(self, path, hub):
        self.path, self.hub = path, hub
        self.models = path / "cache" / "models"
        self.downloads = path / "cache" / "downloads"

    def environment(self, **extra):
        environment = {
            name: value for name, value in clean_environment().items() if not name.startswith(("HF_", "XDG_"))
        }
        environment |= {
            "HOME": str(self.path), "PENSIEVE_CACHE_DIR": str(self.path / "cache"), "HF_ENDPOINT": self.hub.url,
            "NO_PROXY": "*", "PIP_INDEX_URL": DEAD + "/simple"
        }
        return environment | extra

    def run(self, *arguments, stdin=None, **extra):
        return run(*arguments, env=self.environment(**extra), stdin=stdin)

    def offline(self, *arguments):
        return self.run(*arguments, HF_ENDPOINT=DEAD)

    def start(self, *arguments, **extra):
        return subprocess.Popen([BINARY, *arguments], env=self.environment(**extra), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def visible(self):
        return sorted(str(path.relative_to(self.models)) for path in self.models.rglob("*") if path.is_file())

    def listed(self):
        done = self.run("list", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path, hub):
    return Home(tmp_path, hub)


def assert_ok(done):
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done


def assert_error(done, *words):
    """Exit code 1, and a last line that says what is wrong."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    for word in words:
        assert word in last, last
    assert "secret" not in done.stderr  # signatures of redirects stay out of sight


# ---- the straight way ----


def test_pull_run_list_rm(home, hub):
    done = assert_ok(home.run("pull", "tiny/llama"))
    path = home.models / "tiny" / "llama"
    assert done.stdout.split() == ["tiny/llama", str(path)]
    useless = ("README.md", "pytorch_model.bin", "onnx/model.onnx")
    wanted = {name: data for name, data in REPOS["tiny/llama"].items() if name not in useless}
    assert home.visible() == sorted(["tiny/llama/.pensieve.json"] + [f"tiny/llama/{name}" for name in wanted])
    for name, data in wanted.items():
        assert (path / name).read_bytes() == data
    # From here on without a network.
    by_name = assert_ok(home.offline("run", "tiny/llama", "--raw", "--prompt", "abc", "-t", 0, "-n", 4, "--json"))
    by_path = assert_ok(run("run", MODELS / "tiny-llama", "--raw", "--prompt", "abc", "-t", 0, "-n", 4, "--json"))
    assert json.loads(by_name.stdout)["tokens"] == json.loads(by_path.stdout)["tokens"]
    assert by_name.stderr == ""
    assert_ok(home.offline("inspect", "tiny/llama"))
    [entry] = home.listed()
    assert entry["name"] == "tiny/llama" and entry["cache"] == "pensieve" and entry["path"] == str(path)
    assert entry["format"] == "safetensors" and entry["bytes"] >= sum(map(len, wanted.values()))
    text = assert_ok(home.run("list")).stdout
    assert "tiny/llama" in text and "pensieve" in text and "\x1b" not in text
    assert_error(home.run("rm", "tiny/llama"), "--yes")
    assert path.exists()
    assert "removed tiny/llama" in assert_ok(home.run("rm", "--yes", "tiny/llama")).stdout
    assert home.visible() == [] and home.listed() == []
    assert_error(home.run("rm", "--yes", "tiny/llama"), "tiny/llama")


def test_a_second_pull_fetches_nothing(home, hub):
    assert_ok(home.run("pull", "tiny/llama"))
    hub.requests.clear()
    done = assert_ok(home.run("pull", "tiny/llama"))
    assert "already" in done.stderr and len(hub.requests) == 1


def test_a_changed_repo_is_pulled_anew(home, hub):
    assert_ok(home.run("pull", "tiny/qwen3"))
    hub.repos["tiny/qwen3"]["tokenizer_config.json"] += b" "
    hub.requests.clear()
    assert_ok(home.run("pull", "tiny/qwen3"))
    assert (home.models / "tiny/qwen3/tokenizer_config.json").read_bytes().endswith(b" ")
    assert hub.served(".safetensors") == []  # what has not changed is not fetched again
    assert_ok(home.offline("tokenize", "-m", "tiny/qwen3", "abc"))


@pytest.mark.parametrize("name", ["tiny/gguf/tiny-Q8_0.gguf", "tiny/gguf:q8_0"])
def test_gguf(home, hub, name):
    assert_ok(home.run("pull", name))
    assert home.visible() == ["tiny/gguf/.pensieve.json", "tiny/gguf/tiny-Q8_0.gguf"]
    answer = assert_ok(home.offline("run", name, "--raw", "-p", "abc", "-t", 0, "-n", 4, "--json"))
    assert len(json.loads(answer.stdout)["tokens"]) == 4
    [entry] = home.listed()
    assert entry["name"] == "tiny/gguf/tiny-Q8_0.gguf" and entry["quantization"] == "Q8_0" and entry["format"] == "gguf"
    assert_ok(home.run("pull", "tiny/gguf:Q4_1"))
    assert [entry["quantization"] for entry in home.listed()] == ["Q4_1", "Q8_0"]
    assert_ok(home.run("rm", "-y", "tiny/gguf:Q4_1"))
    assert [entry["quantization"] for entry in home.listed()] == ["Q8_0"]
    assert_error(home.run("pull", "tiny/gguf"), "tiny-Q8_0.gguf", "tiny-Q4_1.gguf")
    assert_error(home.run("pull", "tiny/gguf:Q2_K"), "Q2_K", "tiny-Q8_0.gguf")


def test_revisions(home, hub):
    commit = hub.commit("tiny/bert")
    assert_ok(home.run("pull", f"tiny/bert@{commit}"))
    assert [entry["name"] for entry in home.listed()] == [f"tiny/bert@{commit}"]
    assert_ok(home.offline("tokenize", "-m", f"tiny/bert@{commit}", "abc"))
    assert_error(home.run("pull", "tiny/bert@v9"), "tiny/bert", "v9")


def test_serve_pulls_what_is_missing(home, hub, start_server):
    server = start_server("--model", "tiny/llama", "--embedding-model", "tiny/bert", env=home.environment())
    models = {model["id"] for model in server.get("/v1/models").json()["data"]}
    assert models == {"tiny/llama", "tiny/bert"}
    answered = server.post("/v1/completions", {"model": "tiny/llama", "prompt": "abc", "max_tokens": 3})
    assert answered.status_code == 200 and answered.json()["usage"]["completion_tokens"] == 3
    assert server.post("/v1/embeddings", {"model": "tiny/bert", "input": "abc"}).status_code == 200
    assert "tiny/llama" in server.log()


def test_aliases(home, hub):
    hub.repos["mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"] = hub.repos["tiny/qwen3"]
    assert_ok(home.run("pull", "qwen3-0.6b-4bit"))
    for name in ("qwen3-0.6b-4bit", "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"):
        assert_ok(home.offline("tokenize", "-m", name, "abc"))
    assert_ok(home.run("rm", "-y", "qwen3-0.6b-4bit"))
    assert home.visible() == []


# ---- paths and names ----


def test_a_path_wins_over_a_name(home, hub, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "llama").symlink_to(MODELS / "tiny-qwen3")
    done = run("inspect", "--json", "tiny/llama", env=home.environment(), cwd=tmp_path)
    assert json.loads(done.stdout)["architecture"] == "qwen3" and hub.requests == []


@pytest.mark.parametrize(
    "name", ["tiny/lama", "./tiny/llama", "nothing", "a/b/c", "/no/such/model.gguf", "../x", "model.gguf"])
def test_a_typo_says_both_readings(home, name):
    for command in (["tokenize", "-m", name, "x"], ["serve", "--model", name, "--port", "0", "--grpc-port", "0"]):
        assert_error(home.run(*command), name, "no such file or directory", "name")
    assert home.visible() == []


@pytest.mark.parametrize(
    "name", ["..", "../../x", "/", "tiny/..", "tiny/../..", "", "~", "tiny", ".", "tiny/llama/../../x.gguf"])
def test_rm_takes_no_paths(home, hub, name):
    assert_ok(home.run("pull", "tiny/llama"))
    before = home.visible()
    assert_error(home.run("rm", "-y", name))
    assert home.visible() == before


# ---- other programs' caches ----


def write_hf_cache(home, repo, files, commit):
    root = home.path / ".cache/huggingface/hub" / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
    for name, data in files.items():
        (root / "blobs" / sha256(data)).write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(root / "blobs" / sha256(data))
    return snapshot


def test_hugging_faces_cache_is_used(home, hub):
    snapshot = write_hf_cache(home, "tiny/llama", REPOS["tiny/llama"], hub.commit("tiny/llama"))
    assert_ok(home.run("run", "tiny/llama", "--raw", "-p", "abc", "-n", 2, HF_HUB_OFFLINE="1"))
    assert hub.requests == []
    done = assert_ok(home.run("pull", "tiny/llama"))
    assert "Hugging Face" in done.stderr and str(snapshot) in done.stdout
    assert hub.served(".safetensors") == [] and home.visible() == []
    [entry] = home.listed()
    assert entry["cache"] == "huggingface" and entry["path"] == str(snapshot)
    assert_error(home.run("rm", "-y", "tiny/llama"), "--from huggingface")
    assert snapshot.exists()
    assert_ok(home.run("rm", "-y", "--from", "huggingface", "tiny/llama"))
    assert not snapshot.exists()


def test_a_half_download_of_another_program_is_not_used(home, hub):
    files = dict(REPOS["tiny/llama"])
    del files["model-00002-of-00002.safetensors"]
    write_hf_cache(home, "tiny/llama", files, hub.commit("tiny/llama"))
    assert home.listed() == []
    assert_ok(home.run("run", "tiny/llama", "--raw", "-p", "abc", "-n", 2))
    assert "tiny/llama/model-00002-of-00002.safetensors" in home.visible()


def test_akidbs_cache_is_used(home, hub, tmp_path):
    directory = tmp_path / "akidb" / "models" / "qwen3-0.6b-4bit"
    directory.mkdir(parents=True)
    for name, data in REPOS["tiny/qwen3"].items():
        (directory / name).write_bytes(data)
    (directory / "akidb_metadata.json").write_text("{}")
    environment = {"AKIDB_CACHE_DIR": str(tmp_path / "akidb"), "HF_ENDPOINT": DEAD}
    for name in ("qwen3-0.6b-4bit", "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"):
        assert_ok(home.run("tokenize", "-m", name, "abc", **environment))
        # As AkiDB is set up: its directory is ours too.
        assert_ok(home.run("tokenize", "-m", name, "abc", PENSIEVE_CACHE_DIR="", **environment))
    for cache in ("", str(tmp_path / "cache")):
        listed = json.loads(home.run("list", "--json", PENSIEVE_CACHE_DIR=cache, **environment).stdout)
        assert [(entry["name"], entry["cache"]) for entry in listed] == [("qwen3-0.6b-4bit", "akidb")]
    assert_error(home.run("rm", "-y", "qwen3-0.6b-4bit", **environment), "--from akidb")
    assert_ok(home.run("rm", "-y", "qwen3-0.6b-4bit", "--from", "akidb", **environment))
    assert not directory.exists()


def test_offline_says_so(home):
    assert_error(home.run("pull", "tiny/llama", HF_HUB_OFFLINE="1"), "tiny/llama", "HF_HUB_OFFLINE")
    assert_error(home.run("run", "tiny/llama", "-p", "x", HF_HUB_OFFLINE="1"), "tiny/llama", "HF_HUB_OFFLINE")
    # The default models come from another place, and stay away as well.
    for command in (["pull"], ["run", "-p", "x"], ["serve", "--port", 0, "--grpc-port", -1]):
        assert_error(home.run(*command, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")


def test_credentials_of_an_index_are_never_shown(home):
    index = DEAD.replace("//", "//ada:sEcret@") + "/simple"
    done = home.run("pull", PIP_INDEX_URL=index)
    assert_error(done, "127.0.0.1")
    assert "sEcret" not in done.stdout + done.stderr
    assert "sEcret" not in "".join(p.read_text("utf-8", "replace") for p in home.downloads.rglob("*") if p.is_file())


# ---- a hub or a network that misbehaves ----


def test_tokens_stay_with_the_hub(home, hub):
    hub.private_token = "hf_private"
    assert_error(home.run("pull", "tiny/llama"), "gated", "HF_TOKEN")
    assert_ok(home.run("pull", "tiny/llama", HF_TOKEN="hf_private"))
    assert hub.headers_of("cdn") and all("Authorization" not in headers for headers in hub.headers_of("cdn"))
    # The file that Hugging Face's own login writes does as well.
    (home.path / ".cache/huggingface").mkdir(parents=True)
    (home.path / ".cache/huggingface/token").write_text("hf_private\n")
    assert_ok(home.run("pull", "tiny/bert"))


@pytest.mark.parametrize("status, code, words", [
    (404, "RepoNotFound", ["no model tiny/llama", "HF_TOKEN"]), (401, "", ["tiny/llama", "HF_TOKEN"]),
    (403, "", ["gated", "HF_TOKEN"]), (401, "GatedRepo", ["gated", "HF_TOKEN"]), (418, "", ["418"])
])
def test_refusals(home, hub, status, code, words):
    hub.fail(lambda handler: handler.reply(status, b"no", X_Error_Code=code) or True)
    assert_error(home.run("pull", "tiny/llama"), *words)
    assert home.visible() == []


def test_cuts_and_busy_servers_are_survived(home, hub):
    hub.fail(lambda handler: handler.reply(500, b"oops") or True, times=1)
    hub.fail(lambda handler: handler.reply(429, b"slow down", Retry_After=0) or True, times=1)
    hub.fail(lambda handler: handler.hang_up() or True, times=1)

    def cut(handler):
        data = hub.file_of(handler)
        return lambda: handler.reply_file(data, sha256(data), cut_after=20_000)

    hub.fail(cut, role="cdn", times=2)
    assert_ok(home.run("pull", "tiny/qwen3"))
    assert (home.models / "tiny/qwen3/model.safetensors").read_bytes() == REPOS["tiny/qwen3"]["model.safetensors"]
    ranges = [headers["Range"] for headers in hub.headers_of("cdn") if "Range" in headers]
    assert ranges and ranges[0].startswith("bytes=20000-")
    assert_ok(home.offline("tokenize", "-m", "tiny/qwen3", "abc"))


def test_a_network_that_is_not_there(home):
    assert_error(home.offline("pull", "tiny/llama"), "127.0.0.1")


def slow(hub, bytes_per_s=60_000):
    def answer(handler):
        data = hub.file_of(handler)
        return lambda: handler.reply_file(data, sha256(data), bytes_per_s=bytes_per_s)

    hub.fail(answer, role="cdn")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_pull_goes_on(home, hub, end):
    size = len(hub.repos["tiny/qwen3"]["model.safetensors"])
    slow(hub, bytes_per_s=size // 5)
    process = home.start("pull", "tiny/qwen3")
    note = lambda: [path for path in home.downloads.rglob("*.part.json") if "safetensors" in path.name]
    done = lambda: sum(segment[2] for path in note() for segment in json.loads(path.read_text())["segments"])
    wait_for(lambda: done() > 1000, "bytes on disk")
    process.send_signal(end)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    if end == signal.SIGINT:
        assert "stopped" in errors
    assert home.visible() == [] and home.listed() == []
    assert_error(home.offline("run", "tiny/qwen3", "-p", "x"))
    there = done()
    hub.faults.clear()
    hub.requests.clear()
    again = assert_ok(home.run("pull", "tiny/qwen3"))
    assert "are there" in again.stderr
    [headers] = hub.headers_of("cdn")
    assert headers["Range"] == f"bytes={there}-{size - 1}"
    assert not any(path.is_dir() for path in home.downloads.iterdir())
    assert_ok(home.offline("tokenize", "-m", "tiny/qwen3", "abc"))


def test_serve_can_be_stopped_while_it_pulls(home, hub):
    slow(hub, bytes_per_s=len(hub.repos["tiny/qwen3"]["model.safetensors"]) // 20)
    process = home.start("serve", "--model", "tiny/qwen3", "--port", "0", "--grpc-port", "0")
    wait_for(lambda: list(home.downloads.rglob("*.safetensors.part")), "a download")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_two_pulls_at_once_fetch_once(home, hub):
    slow(hub, bytes_per_s=len(hub.repos["tiny/qwen3"]["model.safetensors"]) * 2)
    processes = [home.start("pull", "tiny/qwen3") for _ in range(3)]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and "tiny/qwen3" in out, errors
    assert len(hub.served("model.safetensors", role="cdn")) == 1


def test_wrong_bytes_never_become_a_model(home, hub):
    hub.digests["model.safetensors"] = "0" * 64
    assert_error(home.run("pull", "tiny/qwen3"), "model.safetensors", "SHA-256")
    hub.digests.clear()

    def other(handler):
        if not handler.path.endswith("/config.json"):
            return False
        return handler.reply(200, b"{}".ljust(len(hub.repos["tiny/bert"]["config.json"]))) or True

    hub.fail(other, role="hub")
    assert_error(home.run("pull", "tiny/bert"), "config.json", "SHA-1")
    assert home.visible() == []
    for name in ("model.safetensors.part", "config.json.part"):
        repo = "tiny--qwen3" if name.startswith("model") else "tiny--bert"
        assert not list(home.downloads.glob(f"{repo}*/{name}*"))


def test_lying_sizes(home, hub):
    size = len(hub.repos["tiny/qwen3"]["model.safetensors"])
    hub.sizes["model.safetensors"] = 1 << 40
    assert_error(home.run("pull", "tiny/qwen3"), "1024.0 GiB", "disk")
    assert hub.served("model.safetensors") == []
    for lie in (size - 1, size + 1):
        hub.sizes["model.safetensors"] = lie
        assert_error(home.run("pull", "tiny/qwen3"), "model.safetensors", str(size))
    for lie in (0, 1 << 62):
        hub.sizes["model.safetensors"] = lie
        assert_error(home.run("pull", "tiny/qwen3"), "model.safetensors")
    hub.sizes.clear()

    def endless(handler):
        def answer():
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for _ in range(10 * size // 1024):
                handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")

        return answer

    hub.fail(endless, role="cdn")
    assert_error(home.run("pull", "tiny/qwen3"), "model.safetensors", str(size))
    assert home.visible() == []


@pytest.mark.parametrize("name", [
    "../evil.json", "/etc/evil.json", "a/../../evil.gguf", "a\\..\\evil.gguf", "evil\0.gguf", "evil\n.gguf",
    "a//evil.gguf",
    "x" * 300 + ".gguf", "./config.json"
])
def test_hostile_names(home, hub, name):
    hub.repos["tiny/qwen3"][name] = b"evil"
    before = sorted(home.path.rglob("*"))
    assert_error(home.run("pull", "tiny/qwen3"), "refused")
    assert sorted(home.path.rglob("*")) == before


def test_names_that_differ_only_in_case(home, hub):
    hub.repos["tiny/qwen3"]["model-A.safetensors"] = hub.repos["tiny/qwen3"]["model-a.safetensors"] = b"x"
    assert_error(home.run("pull", "tiny/qwen3"), "refused")


@pytest.mark.parametrize("body", [
    b"", b"<html>", b"[]", b"{}", b'{"sha":"x","siblings":[]}', b"[" * 100_000, b"x" * (33 << 20)
],
                         ids=["empty", "html", "list", "object", "commit", "deep", "long"])
def test_senseless_listings(home, hub, body):
    hub.fail(lambda handler: handler.path.startswith("/api/") and (handler.reply(200, body) or True), role="hub")
    assert_error(home.run("pull", "tiny/llama"))
    assert home.visible() == []


def test_redirects(home, hub):
    loop = lambda handler: "/resolve/" in handler.path and (handler.reply(302, Location=handler.path) or True)
    hub.fail(loop, role="hub")
    assert_error(home.run("pull", "tiny/llama"), "redirects")
    hub.faults.clear()
    to_a_file = lambda handler: handler.reply(302, Location="file:///etc/passwd") or True
    hub.fail(lambda handler: "/resolve/" in handler.path and to_a_file(handler), role="hub")
    assert_error(home.run("pull", "tiny/llama"), "redirects to file")
    assert home.visible() == []
    # A repo that was renamed.
    hub.faults.clear()
    renamed = lambda handler: handler.reply(307, Location=handler.path.replace("old/name", "tiny/bert")) or True
    hub.fail(lambda handler: "old/name" in handler.path and renamed(handler), role="hub")
    assert_ok(home.run("pull", "old/name"))
    assert_ok(home.offline("tokenize", "-m", "old/name", "abc"))


def test_repos_without_a_model(home, hub):
    hub.repos["tiny/other"] = {"README.md": b"x", "config.json": b"{}", "pytorch_model.bin": b"x"}
    assert_error(home.run("pull", "tiny/other"), "tiny/other", "safetensors", "gguf")
    hub.repos["tiny/half"] = {name: data for name, data in REPOS["tiny/llama"].items() if "00002-of" not in name}
    assert_error(home.run("pull", "tiny/half"), "tiny/half", "whole")
    assert home.listed() == []


def test_a_cache_that_cannot_be_written(home, tmp_path):
    (tmp_path / "file").write_text("")
    done = home.run("pull", "tiny/llama", PENSIEVE_CACHE_DIR=str(tmp_path / "file" / "x"))
    assert_error(done, str(tmp_path / "file"))


def test_a_full_disk(home, hub):
    """A limit on the size of files stands for it: writing fails in the same place."""
    data = bytes(range(256)) * 4096
    hub.repos["tiny/large"] = {"large.gguf": data}
    limit = len(data) // 2
    done = subprocess.run([BINARY, "pull", "tiny/large"],
                          env=home.environment(),
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
                          stdin=subprocess.DEVNULL,
                          capture_output=True,
                          text=True,
                          timeout=60)
    assert_error(done, "large.gguf", "cannot write", os.strerror(errno.EFBIG))
    assert home.visible() == [] and home.listed() == []
    hub.requests.clear()
    again = assert_ok(home.run("pull", "tiny/large"))
    assert "are there" in again.stderr
    [headers] = hub.headers_of("cdn")
    begin = int(re.fullmatch(r"bytes=(\d+)-\d+", headers["Range"])[1])
    assert 0 < begin <= limit
    assert (home.models / "tiny/large/large.gguf").read_bytes() == data


def test_a_large_file_comes_in_pieces(home, hub):
    """Two segments and a byte; the second breaks once."""
    data = bytes(128 << 20) + b"!"
    hub.repos["tiny/large"] = {"large.gguf": data}
    digest = sha256(data)

    def cut(handler):
        if not handler.headers.get("Range", "").startswith("bytes=67108864-"):
            return False
        return lambda: handler.reply_file(data, digest, cut_after=1 << 20)

    hub.fail(cut, role="cdn", times=1)
    assert_ok(home.run("pull", "tiny/large"))
    assert sha256((home.models / "tiny/large/large.gguf").read_bytes()) == digest
    ranges = {headers.get("Range") for headers in hub.headers_of("cdn")}
    assert ranges == {
        "bytes=0-67108863", "bytes=67108864-134217727", f"bytes={65 << 20}-134217727", "bytes=134217728-134217728"
    }


# ---- what the user sees ----


def on_terminal(home, *arguments, keys=b""):
    """Output of a command whose stdin, stdout and stderr are a terminal, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BINARY, [str(BINARY), *arguments], home.environment(TERM="xterm"))
    if keys:
        os.write(terminal, keys)
    output = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        output += piece
    return output.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_progress_on_a_terminal(home, hub):
    slow(hub, bytes_per_s=len(hub.repos["tiny/qwen3"]["model.safetensors"]))
    output, code = on_terminal(home, "pull", "tiny/qwen3")
    assert code == 0
    bar = r"\r\x1b\[Ktiny/qwen3  \[=+ +\]  [\d.]+ KiB / [\d.]+ KiB  [\d.]+ KiB/s  \d:\d\d left"
    assert re.search(bar, output), output
    assert "tiny/qwen3: done, " in output


def test_progress_in_a_log(home):
    done = assert_ok(home.run("pull", "tiny/qwen3"))
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("tiny/qwen3: 4 files, ") and lines[1].startswith("tiny/qwen3: done, ")
    assert "\x1b" not in done.stderr + done.stdout and "\r" not in done.stderr


def test_rm_asks_on_a_terminal(home):
    assert_ok(home.run("pull", "tiny/qwen3"))
    output, code = on_terminal(home, "rm", "tiny/qwen3", keys=b"\n")
    assert code == 0 and "[y/N]" in output and "kept tiny/qwen3" in output and home.visible()
    output, code = on_terminal(home, "rm", "tiny/qwen3", keys=b"y\n")
    assert code == 0 and "removed tiny/qwen3" in output and home.visible() == []
