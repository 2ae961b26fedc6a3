"""What every test shares: where the binary and the models lie, a server as a process, and plain readers of its answers.

PENSIEVE_BINARY names the binary (default: build/release/pensieve). The default models must be in the cache: `pensieve
pull` puts them there. PENSIEVE_CACHE_DIR and AKIDB_CACHE_DIR are honoured as by the binary.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"  # optional further data beside a checkout
DATA = ROOT / "tests" / "data"
BINARY = pathlib.Path(os.environ.get("PENSIEVE_BINARY", ROOT / "build" / "release" / "pensieve")).resolve()

START_S = 180
GENERATOR_NAME = "smollm2-135m-instruct"
EMBEDDER_NAME = "all-minilm-l6-v2"

# What tests ask where they quote the default model's answer. In the float reference each token of these answers leads by
# ANSWER_MARGIN nats at least; instruction sets differ by 1e-4. test_exact.py measures both.
QUESTION = "What is the capital of Japan?"
ANSWER = "The capital of Japan is Tokyo."
OPENING = "The capital of Japan is"  # of the answer, and of a raw completion that says Tokyo next
TURNS = [{"role": "user", "content": "What is the capital of Italy?"},
         {"role": "assistant", "content": "The capital of Italy is Rome."},
         {"role": "user", "content": "And of Germany?"}]
TURNS_ANSWER = "The capital of Germany is Berlin."
ANSWER_MARGIN = 0.3
# Of its first token's likelihood an independent float reference has figures.
REFERENCE_QUESTION = "What is the capital of France?"


def cache_dir():
    for name in ("PENSIEVE_CACHE_DIR", "AKIDB_CACHE_DIR"):
        if os.environ.get(name):
            return pathlib.Path(os.environ[name])
    return pathlib.Path.home() / ".cache" / "pensieve"


GENERATOR = cache_dir() / "models" / GENERATOR_NAME / "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDER = cache_dir() / "models" / EMBEDDER_NAME


def clean_environment(**extra):
    """The process environment without settings that would change what the binary does."""
    foreign = ("PENSIEVE_", "AKIDB_", "MODEL_PATH", "MAX_CONTEXT_LENGTH", "GPU_MEMORY_LIMIT", "LOG_LEVEL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment["PENSIEVE_CACHE_DIR"] = str(cache_dir())
    if "PENSIEVE_ISA" in os.environ:  # the whole run is to compute with lesser kernels
        environment["PENSIEVE_ISA"] = os.environ["PENSIEVE_ISA"]
    if "PENSIEVE_TEST_DEVICE" in os.environ:  # or on another device
        environment["PENSIEVE_DEVICE"] = os.environ["PENSIEVE_TEST_DEVICE"]
    environment.update(extra)
    return environment


def run(*arguments, stdin=None, env=None, cwd=None, timeout=600):
    """Runs one command of the binary to its end; text in, text out."""
    return subprocess.run([BINARY, *map(str, arguments)],
                          input=stdin,
                          capture_output=True,
                          text=True,
                          timeout=timeout,
                          env=env or clean_environment(),
                          cwd=cwd or tempfile.gettempdir(),
                          encoding="utf-8")


def run_json(*arguments, **options):
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Server:
    """`pensieve serve` on free ports, up to /ready. Use as a context manager."""
    def __init__(self, *arguments, grpc=0, memory_gate="false", env=None, cwd=None):
        self.directory = tempfile.TemporaryDirectory(prefix="pensieve-test-")
        self.log_path = pathlib.Path(self.directory.name) / "log"
        command = [
            BINARY, "serve", "--port", "0", f"--grpc-port={grpc}", f"--memory-gate={memory_gate}", *map(str, arguments)
        ]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command,
                                            stdin=subprocess.DEVNULL,
                                            stdout=log,
                                            stderr=subprocess.STDOUT,
                                            env=env or clean_environment(),
                                            cwd=cwd or self.directory.name)
        self.wait_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.directory.cleanup()

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def wait_ready(self):
        """Until the welcome says where the server is; then /ready must agree."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            welcome = re.search(r"is ready after .* at (http://[\d.]+:(\d+))(?: \(gRPC at [\d.]+:(\d+)\))?\n",
                                self.log())
            if welcome:
                self.url, self.http_port, self.grpc_port = welcome[1], int(welcome[2]), int(welcome[3] or 0)
                assert self.get("/ready").status_code == 200
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not become ready (exit code {self.process.returncode}):\n"
                             f"{self.log()[-4000:]}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def terminate(self, timeout=600):
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def alive(self):
        return self.process.poll() is None

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=300, **options)

    def post(self, path, body=None, **options):
        return requests.post(self.url + path, json=body, timeout=600, **options)

    def message(self, text, max_tokens=16, **fields):
        """One greedy answer by /v1/messages."""
        body = {
            "model": "local", "max_tokens": max_tokens, "temperature": 0,
            "messages": [{"role": "user", "content": text}], **fields
        }
        answer = self.post("/v1/messages", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metric(self, name, **labels):
        """Sum of the samples of a metric whose labels match."""
        total, found = 0.0, False
        for line in self.get("/metrics").text.splitlines():
            match = re.fullmatch(r"([a-zA-Z_:]\w*)(?:\{(.*)\})? ([^ ]+)", line)
            if match is None or match[1] != name:
                continue
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            if all(have.get(key) == value for key, value in labels.items()):
                total, found = total + float(match[3]), True
        assert found, f"no metric {name} {labels}"
        return total

    def assert_healthy(self):
        assert self.alive(), self.log()[-4000:]
        assert self.get("/health").status_code == 200
        assert text_of(self.message("Say hi.", max_tokens=2)) != ""


def text_of(message):
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def wait_for(condition, what, seconds=120):
    """Waits until `condition()` holds. The limit only bounds a failure; it is no measurement."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


def parse_sse(payload):
    """[(event, data)] of a whole event stream; insists on Anthropic's exact framing."""
    assert payload.endswith("\n\n"), payload[-200:]
    events = []
    for record in payload[:-2].split("\n\n"):
        lines = record.split("\n")
        assert len(lines) == 2, record
        assert lines[0].startswith("event: ") and lines[1].startswith("data: "), record
        data = json.loads(lines[1][len("data: "):])
        assert data["type"] == lines[0][len("event: "):], record
        events.append((data["type"], data))
    return events
