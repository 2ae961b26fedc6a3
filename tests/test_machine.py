"""What a machine does to a server: taken ports, signals at any moment, files that shrink, logs that nobody reads."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest
import requests

from harness import BINARY, DATA, clean_environment, run, wait_for
from hub_server import HubServer
from test_hub import REPOS, Home, slow

MODELS = DATA / "models"


@pytest.fixture
def hub():
    with HubServer({repo: dict(files) for repo, files in REPOS.items()}) as server:
        yield server


@pytest.fixture
def home(tmp_path, hub):
    return Home(tmp_path, hub)


class Starting:
    """`pensieve serve` of a model whose download takes its time, from the moment when it listens."""

    def __init__(self, home, *arguments):
        self.log_path = home.path / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([
                BINARY, "serve", "--port", "0", "--grpc-port", "-1", "--memory-gate", "false", *map(str, arguments)
            ], env=home.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        wait_for(lambda: self.process.poll() is not None or self.address(), "a port")
        self.url = "http://" + self.address()[1]

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def address(self):
        return re.search(r"listening http=([\d.]+:\d+)", self.log())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def very_slow(hub):
    slow(hub, bytes_per_s=len(hub.repos["tiny/qwen3"]["model.safetensors"]) // 600)


# ---- start ----


def test_a_busy_port_is_told_before_anything_is_fetched(home, hub):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags in (["--port", port, "--grpc-port", -1], ["--port", 0, "--grpc-port", port]):
            done = home.run("serve", "--model", "tiny/qwen3", *flags)
            assert done.returncode == 1 and str(port) in done.stderr.splitlines()[-1], done.stderr
    assert hub.requests == []


def test_a_server_answers_probes_while_it_loads(home, hub):
    very_slow(hub)
    with Starting(home, "tiny/qwen3", MODELS / "tiny-llama") as starting:
        assert requests.get(starting.url + "/health", timeout=60).status_code == 200

        def downloading():
            answer = requests.get(starting.url + "/ready", timeout=60)
            assert answer.status_code == 503 and answer.json()["status"] == "not_ready"
            loading = answer.json()["loading"]
            return loading["model"] == "tiny/qwen3" and loading.get("done_bytes", 0) > 0 and loading["total_bytes"] > 0

        wait_for(downloading, "progress")
        refused = requests.post(starting.url + "/v1/messages", timeout=60, json={
            "model": "tiny/qwen3", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]
        })
        assert refused.status_code in (503, 529) and "loading" in refused.text and "retry-after" in refused.headers


@pytest.mark.parametrize("end, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_server_that_loads(home, hub, end, code):
    very_slow(hub)
    with Starting(home, "tiny/qwen3") as starting:
        wait_for(lambda: list(home.downloads.rglob("*.safetensors.part")), "a download")
        starting.process.send_signal(end)
        assert starting.process.wait(60) in (code, 130)
        assert "is ready" not in starting.log()
    # What is there is noted, so that the next start goes on.
    assert list(home.downloads.rglob("*.safetensors.part.json"))


def test_a_second_signal_ends_it_at_once(start_server):
    server = start_server("--model", MODELS / "tiny-llama", "--grace", "1h")
    with socket.create_connection(("127.0.0.1", server.http_port)) as client:
        # A request whose body does not come is under way.
        client.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        wait_for(lambda: server.get("/health").status_code == 200, "an answer")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in server.log(), "the stop")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130


def test_a_server_without_a_stdout_serves(tmp_path):
    with open("/dev/full", "wb") as full, open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([BINARY, "serve", MODELS / "tiny-llama", "--port", "0", "--grpc-port", "-1"],
                                   env=clean_environment(), stdin=subprocess.DEVNULL, stdout=full, stderr=log)
    try:
        address = lambda: re.search(r"listening http=([\d.]+:\d+)", (tmp_path / "log").read_text())
        wait_for(lambda: process.poll() is not None or address(), "a port")
        ready = lambda: requests.get(f"http://{address()[1]}/ready", timeout=60).status_code == 200
        wait_for(ready, "readiness")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


# ---- logs ----


def test_a_log_that_nobody_reads_holds_up_no_request(tmp_path):
    read_end, write_end = os.pipe()
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen([
            BINARY, "serve", MODELS / "tiny-llama", "--port", "0", "--grpc-port", "-1", "--http-threads", "1"
        ], env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=write_end)
    os.close(write_end)
    try:
        welcome = lambda: re.search(r"is ready after .* at (http://[\d.]+:\d+)", (tmp_path / "out").read_text())
        wait_for(lambda: process.poll() is not None or welcome(), "the welcome")
        url = welcome()[1]
        # Each is a line of the log, and a pipe holds 64 KiB.
        with requests.Session() as session:
            for _ in range(1500):
                assert session.get(url + "/v1/nothing", timeout=60).status_code == 404
            assert session.get(url + "/ready", timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = b""
        while piece := os.read(read_end, 65536):
            log += piece
        assert log.count(b"/v1/") > 100
    finally:
        process.kill()
        os.close(read_end)


# ---- files ----


def test_a_truncated_model_fails_its_requests_and_nothing_else(tmp_path, start_server):
    path = tmp_path / "shrinks.gguf"
    shutil.copy(MODELS / "tiny-llama-q8_0.gguf", path)
    server = start_server(path, MODELS / "tiny-llama")
    ask = lambda model: server.post("/v1/completions", {"model": model, "prompt": "abc", "max_tokens": 3})
    assert ask("shrinks").status_code == ask("tiny-llama").status_code == 200
    assert server.get("/health").status_code == 200
    os.truncate(path, 4096)
    for route, body in (("/v1/completions", {"model": "shrinks", "prompt": "abc"}),
                        ("/v1/messages", {"model": "shrinks", "max_tokens": 3,
                                          "messages": [{"role": "user", "content": "x"}]})):
        failed = server.post(route, body)
        assert failed.status_code == 500 and "shrinks.gguf" in failed.text, failed.text
    assert ask("tiny-llama").status_code == 200
    health = server.get("/health")
    assert health.status_code == 503 and "shrinks.gguf" in health.json()["lost_models"][0]
    assert server.get("/ready").status_code == 503
    assert server.terminate() == 0


def test_a_model_truncated_under_a_running_answer(tmp_path, start_server):
    """The engine meets the lost pages in the middle of a step."""
    path = tmp_path / "shrinks.gguf"
    shutil.copy(MODELS / "tiny-llama-q8_0.gguf", path)
    server = start_server(path, "--context", 4096)
    body = {"model": "shrinks", "prompt": "abc", "max_tokens": 4000, "stream": True, "temperature": 0, "logit_bias": {}}
    with requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=120) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        os.truncate(path, 4096)
        rest = b"\n".join(lines).decode()
    assert server.alive()
    if "finish_reason\": \"" not in rest.replace('":"', '": "'):
        assert "truncated" in rest or "bytes" in rest, rest[-500:]
    assert server.get("/health").status_code == 503


def test_a_model_replaced_by_rename_goes_on(tmp_path, start_server):
    path = tmp_path / "model.gguf"
    shutil.copy(MODELS / "tiny-llama-q8_0.gguf", path)
    server = start_server(path)
    question = {"model": "model", "prompt": "abc", "max_tokens": 5, "temperature": 0}
    before = server.post("/v1/completions", question).json()["choices"][0]["text"]
    (tmp_path / "new").write_bytes(b"no model at all")
    os.replace(tmp_path / "new", path)
    assert server.post("/v1/completions", question).json()["choices"][0]["text"] == before
    assert server.get("/health").status_code == 200


# ---- models of one name ----


def test_two_files_called_model_and_one_model_called_twice(tmp_path, start_server):
    for folder in ("small", "large"):
        (tmp_path / folder).mkdir()
    shutil.copy(MODELS / "tiny-llama-q8_0.gguf", tmp_path / "small" / "model.gguf")
    shutil.copy(MODELS / "tiny-llama-q4_1.gguf", tmp_path / "large" / "model.gguf")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "small" / "model.gguf")
    server = start_server(tmp_path / "small" / "model.gguf", tmp_path / "large" / "model.gguf", tmp_path / "link.gguf",
                          tmp_path / "small")
    names = [model["id"] for model in server.get("/v1/models").json()["data"]]
    assert names == ["small/model", "large/model"]
    for name in names + ["link", "small"]:
        assert server.post("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1}).status_code == 200, name


def test_the_same_model_by_name_and_by_path_is_served_once(home):
    assert home.run("pull", "tiny/gguf:Q8_0").returncode == 0
    path = home.models / "tiny" / "gguf" / "tiny-Q8_0.gguf"
    with Starting(home, "tiny/gguf:Q8_0", path) as starting:
        wait_for(lambda: requests.get(starting.url + "/ready", timeout=60).status_code == 200, "readiness")
        models = requests.get(starting.url + "/v1/models", timeout=60).json()["data"]
        assert [model["id"] for model in models] == ["tiny/gguf:Q8_0"]


def test_paths_with_commas_and_brackets(tmp_path, start_server):
    path = tmp_path / "[v2], tiny.gguf"
    shutil.copy(MODELS / "tiny-llama-q8_0.gguf", path)
    server = start_server("--model", path, cwd=tmp_path)
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["[v2], tiny"]


# ---- memory and processors ----


def test_inspect_tells_what_is_available():
    facts = json.loads(run("inspect", "--json", MODELS / "tiny-llama").stdout)
    assert facts["available_memory_bytes"] > 0 and facts["fits_memory"] is True
    assert "available now" in run("inspect", MODELS / "tiny-llama").stdout
