"""Every command of the binary as a user runs it, and what bad model files do to it: one sentence, exit code 1."""
import base64
import json
import os
import pty
import re
import signal
import subprocess

import numpy as np
import pytest

import model_files
from harness import (ANSWER, BINARY, EMBEDDER, EMBEDDER_NAME, GENERATOR, GENERATOR_NAME, QUESTION, REFERENCE_QUESTION, ROOT,
                     clean_environment, run, run_json)

COMMANDS = ["serve", "run", "embed", "inspect", "tokenize", "render", "eval", "bench", "pull", "list", "rm"]
TINY = ROOT / "tests" / "data" / "models" / "tiny-llama"


def assert_fails(done, *words, code=1):
    """One line that names what is wrong; no crash, no other noise."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]


# ---- help ----


def test_help():
    text = run("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert run("--version").stdout.startswith("pensieve ")


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["eval", "nll"], ["eval", "kl"]], ids=" ".join)
def test_help_of_each_command(command):
    done = run(*command, "--help")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) > 3
    assert "\x1b" not in done.stdout  # no colours but on a terminal


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--dance"], ["run", "--max-tokens", "many"], ["eval"],
                                       ["eval", "nll"], ["serve", "--port", "http"]],
                         ids=" ".join)
def test_usage_errors(arguments):
    done = run(*arguments)
    assert done.returncode in (1, 2) and done.stderr.strip()


@pytest.mark.parametrize("arguments, meant", [(["srve"], "serve"), (["rnu", "x"], "run"), (["evla"], "eval"),
                                               (["eval", "nl"], "nll"), (["run", "--promt", "x"], "--prompt"),
                                               (["serve", "--prot=1"], "--port")], ids=lambda value: " ".join(value))
def test_mistyped_words_are_named_with_the_nearest(arguments, meant):
    assert_fails(run(*arguments), f"did you mean {meant}?", code=2)


def test_a_mistyped_model_is_named_with_the_nearest(tmp_path):
    assert_fails(run("inspect", "smolm2-135m-instruct"), f"did you mean {GENERATOR_NAME}?")


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_help_is_as_wide_as_the_terminal(columns):
    for command in ([], ["serve"], ["run"], ["pull"]):
        for line in run(*command, "--help", env=clean_environment(COLUMNS=str(columns))).stdout.splitlines():
            # Only what cannot be broken sticks out: names of options, and lines that are laid out by hand.
            assert len(line) <= columns or line.startswith((" ", "Usage:", "Every command")), line
            assert len(line) <= columns or not line.startswith(" " * 12), line


# ---- where the output goes ----


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", TINY], ["inspect", "--json", TINY], ["list"],
                                       ["tokenize", "-m", TINY, "abc"], ["serve", "--print-config"],
                                       ["run", TINY, "--raw", "-p", "a", "-n", "3"]],
                         ids=lambda value: " ".join(map(str, value[:2])))
def test_output_that_cannot_be_written(arguments):
    def into(stdout):
        return subprocess.run([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=stdout,
                              stderr=subprocess.PIPE, env=clean_environment(), timeout=600, text=True)

    read_end, write_end = os.pipe()
    os.close(read_end)
    closed = into(write_end)
    os.close(write_end)
    assert (closed.returncode, closed.stderr) == (0, "")
    with open("/dev/full", "wb") as full:
        assert_fails(into(full), "No space left")


def on_terminal(*arguments, keys=b"", expect=b"", **environment):
    """Everything that a command on a terminal shows; `keys` are typed when it has shown `expect`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BINARY, [str(BINARY), *map(str, arguments)], clean_environment(**environment))
    output = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other side is gone
            break
        if not piece:
            break
        output += piece
        if keys and expect in output:
            os.write(terminal, keys)
            keys = b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, output
    return output.decode()


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "", "LANG": ""}], ids=str)
def test_typed_letters_beyond_ascii_arrive(locale):
    shown = on_terminal("run", TINY, keys="/ä模é\n/exit\n".encode(), expect=b"> ", TERM="xterm", **locale)
    assert "unknown command /ä模é;" in shown, shown


def test_colours_only_where_they_are_wanted():
    for arguments in (["inspect", TINY], ["list"], ["serve", "--print-config"], ["run", TINY, "-p", "x", "-n", 2]):
        assert "\x1b" not in on_terminal(*arguments, TERM="dumb"), arguments
        assert "\x1b" not in on_terminal(*arguments, TERM="xterm", NO_COLOR="1"), arguments
    assert "\x1b[1m" in on_terminal("inspect", TINY, TERM="xterm")
    assert "\x1b[1m" in on_terminal("inspect", TINY, TERM="xterm", NO_COLOR="")


# ---- tokenize ----


def test_tokenize():
    done = run("tokenize", "--model", GENERATOR, "Hello world")
    ids = [int(word) for word in done.stdout.split()]
    assert ids == run_json("tokenize", "--model", GENERATOR, "--json", "Hello world")["ids"] == [19556, 905]
    assert run("tokenize", "--model", GENERATOR, "--decode", " ".join(map(str, ids))).stdout == "Hello world\n"
    assert run_json("tokenize", "--model", GENERATOR, "--decode", "--json", json.dumps(ids)) == {"text": "Hello world"}
    by_stdin = run("tokenize", "--model", GENERATOR, stdin="Hello world")
    assert by_stdin.stdout == done.stdout
    whole = run_json("tokenize", "--model", EMBEDDER, "--json", "Hello world")
    assert whole["tokens"] == ["[CLS]", "hello", "world", "[SEP]"] and whole["count"] == 4
    assert run_json("tokenize", "--model", EMBEDDER, "--json", "--no-special",
                    "Hello world")["ids"] == whole["ids"][1:-1]


def test_tokenize_lines():
    texts = ["Hello", "", "a\nb\x00", "日本語 🙂"]
    stdin = "".join(json.dumps({"text_b64": base64.b64encode(text.encode()).decode()}) + "\n" for text in texts)
    lines = [
        json.loads(line) for line in run("tokenize", "--model", GENERATOR, "--jsonl", stdin=stdin).stdout.splitlines()
    ]
    assert [base64.b64decode(line["decoded_b64"]).decode() for line in lines] == texts
    assert_fails(run("tokenize", "--model", GENERATOR, "--jsonl", stdin="{}\n"), "text_b64")
    assert_fails(run("tokenize", "--model", GENERATOR, "--decode", "1 two 3"), "two")


# ---- render ----


def test_render(tmp_path):
    text = run("render", "--model", GENERATOR, "Hi").stdout
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    own = run("render", "--model", GENERATOR, "--system", "Be brief.", "Hi").stdout
    assert own == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert own.startswith(
        run("render", "--model", GENERATOR, "--system", "Be brief.", "--no-generation-prompt", "Hi").stdout)
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]))
    assert run("render", "--model", GENERATOR, "--messages", messages, "--continue").stdout.endswith("assistant\nHel")
    whole = run_json("render", "--model", GENERATOR, "--json", "Hi")
    assert whole["prompt"] == text and whole["count"] == len(whole["ids"])
    special = run_json("tokenize", "--model", GENERATOR, "--json", "--no-special", text)
    assert special["ids"] == whole["ids"]
    assert_fails(run("render", "--model", GENERATOR), "nothing to render")
    (tmp_path / "bad.json").write_text("{")
    assert_fails(run("render", "--model", GENERATOR, "--messages", tmp_path / "bad.json"), "bad.json")
    (tmp_path / "bad.jinja").write_text("{% if %}")
    assert_fails(run("render", "--model", GENERATOR, "--chat-template", tmp_path / "bad.jinja", "Hi"))


# ---- inspect ----


def test_inspect():
    facts = run_json("inspect", "--json", GENERATOR)
    assert facts["architecture"] == "llama" and facts["format"] == "gguf v3" and facts["task"] == "generate"
    sizes = {"hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3, "head_dim": 64}
    assert {name: facts[name] for name in sizes} == sizes
    assert facts["vocab_size"] == facts["tokenizer_vocab_size"] == 49152 and facts["context_max"] == 8192
    assert 134_000_000 < facts["parameters"] < 136_000_000
    assert facts["kv_bytes_per_token"] == 2 * 30 * 3 * 64 * 2
    assert facts["expected_memory_bytes"] == facts["weight_bytes"] + facts["activation_bytes"] + facts["kv_bytes"]
    # Logits are planned for the 64 sequences that may be sampled in a step, not for all of its 512 rows.
    assert 64 * 49152 * 4 < facts["activation_bytes"] < 256 * 49152 * 4
    assert facts["device"]["kind"] in facts["device"]["name"] and facts["device"]["reason"]
    assert any(token["text"] == "<|im_end|>" for token in facts["special_tokens"]["stop"])
    assert {entry["type"].upper() for entry in facts["tensors"]} >= {"Q4_1", "Q8_0"}
    assert "<|im_start|>" in facts["chat_template"]
    embedder = run_json("inspect", "--json", EMBEDDER)
    assert embedder["task"] == "embed" and embedder["hidden_size"] == 384 and embedder["kv_bytes_per_token"] == 0
    assert embedder["special_tokens"]["cls"]["text"] == "[CLS]" and embedder["chat_template"] is None
    assert facts["experts"] == 0
    experts = run_json("inspect", "--json", ROOT / "tests" / "data" / "models" / "tiny-gpt-oss")
    assert (experts["experts"], experts["experts_active"], experts["expert_intermediate_size"]) == (4, 2, 32)
    assert "4 a layer, 2 active a token" in run("inspect", ROOT / "tests" / "data" / "models" / "tiny-gpt-oss").stdout
    text = run("inspect", GENERATOR).stdout
    assert "llama" in text and "8192" in text and "\x1b" not in text


# ---- run ----


def test_run():
    done = run("run", GENERATOR, "--prompt", QUESTION, "--temperature", 0, "--max-tokens", 32)
    assert done.returncode == 0 and done.stdout == ANSWER + "\n"
    answer = run_json("run", GENERATOR, "-p", QUESTION, "-t", 0, "-n", 32, "--json")
    assert answer["text"] == ANSWER
    assert answer["usage"]["completion_tokens"] == len(answer["tokens"]) and answer["usage"]["prompt_tokens"] > 10
    assert len(answer["logprobs"]) == len(answer["tokens"])
    assert all(entry["logprob"] <= 0 and entry["id"] == id for entry, id in zip(answer["logprobs"], answer["tokens"]))
    exact = run_json("run", GENERATOR, "-p", REFERENCE_QUESTION, "-t", 0, "-n", 32, "--json", "--activations", "f32")
    assert exact["text"] == "The capital of France is Paris."
    # What an independent float reference says of the first token.
    assert exact["logprobs"][0]["logprob"] == pytest.approx(-1.883, abs=0.002)
    stopped = run_json("run", GENERATOR, "-p", QUESTION, "-t", 0, "--json", "--stop", " Japan")
    assert stopped["text"] == "The capital of"


def test_run_raw():
    raw = run_json("run", GENERATOR, "--raw", "--prompt", "One, two, three,", "-t", 0, "-n", 4, "--json")
    assert raw["text"].strip().startswith("four")
    assert raw["usage"]["prompt_tokens"] < 10


def test_run_seed():
    def draw(seed):
        return run_json("run", GENERATOR, "-p", "Invent a word.", "-t", 1.5, "--seed", seed, "-n", 8,
                        "--json")["tokens"]

    assert draw(5) == draw(5) != draw(6)


def test_chat_over_a_pipe():
    done = run("run", GENERATOR, "-t", 0, "-n", 24, stdin=f"{QUESTION}\n/help\n/clear\n/nonsense\n{QUESTION}\n/exit\n")
    assert done.returncode == 0 and done.stdout.count(ANSWER) == 2 and "/clear" in done.stdout


def test_ctrl_c_stops_the_answer_not_the_program():
    with subprocess.Popen([BINARY, "run", GENERATOR, "-t", "0"],
                          stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE,
                          env=clean_environment()) as chat:
        chat.stdin.write(b"Write a very long story about a ship.\n")
        chat.stdin.flush()
        assert os.read(chat.stdout.fileno(), 1)
        chat.send_signal(signal.SIGINT)
        out, err = chat.communicate(QUESTION.encode() + b"\n/exit\n", timeout=120)
    assert chat.returncode == 0, err
    assert out.decode("utf-8", "replace").rstrip().endswith("Tokyo.") or b"Tokyo" in out


def prompt_of(*arguments, **options):
    """How many tokens the prompt of `run` had."""
    return run_json("run", *arguments, "--raw", "--json", "-t", 0, "-n", 1, **options)["usage"]["prompt_tokens"]


def test_ways_to_give_a_model_and_a_prompt(tmp_path):
    assert prompt_of("--stop", "x", TINY, "a b c") == prompt_of(TINY, "a b c")
    plain = prompt_of("--model", TINY, "--prompt", "a b c")
    assert prompt_of(TINY, "a b c") == prompt_of("-m", TINY, "a b c") == prompt_of(TINY, "-p", "a b c") == plain
    # From a pipe or a file: alone for "-", else before the prompt.
    assert prompt_of(TINY, "-p", "-", stdin="a b c") == plain
    assert prompt_of(TINY, "-", stdin="a b c") == plain
    both = prompt_of(TINY, "-p", "some text\n\na b c")
    assert both > plain
    assert prompt_of(TINY, "-p", "a b c", stdin="some text\n") == prompt_of(TINY, "a b c", stdin="some text") == both
    assert prompt_of(TINY, "-p", "a b c", stdin="") == plain
    assert prompt_of("-m", TINY, "word", stdin="some text\n") == prompt_of(TINY, "-p", "some text\n\nword")
    assert_fails(run("run", TINY, "a", "-p", "b"), "twice")
    assert_fails(run("run", TINY, "a", "-m", TINY), "twice")
    assert_fails(run("run", TINY, "-p", ""), "empty")


def test_a_lone_word_is_a_prompt_or_a_model():
    """The default model answers a sentence, and a word about piped text; else the word is a model."""
    done = run("run", "Say hello.", "-t", 0, "-n", 4)
    assert done.returncode == 0 and done.stdout.strip()
    done = run("run", "Summarize", "-t", 0, "-n", 4, stdin="A short text.")
    assert done.returncode == 0 and done.stdout.strip()
    assert_fails(run("run", "Summarize"), "Summarize", "no such file")
    assert_fails(run("run", "missing.gguf", stdin="A short text."), "missing.gguf")


def test_run_needs_a_prompt_for_json():
    assert_fails(run("run", GENERATOR, "--json"), "--prompt")
    assert_fails(run("run", EMBEDDER, "--prompt", "x"), "embed")


# ---- embed ----


def test_embed():
    done = run("embed", "--model", EMBEDDER, "--json", "Hello", "World")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["Hello", "World"] and len(lines[0]["embedding"]) == 384
    assert np.linalg.norm(lines[0]["embedding"]) == pytest.approx(1, abs=1e-5)
    by_stdin = run("embed", "--model", EMBEDDER, "--json", stdin="Hello\nWorld\n")
    assert by_stdin.stdout == done.stdout
    short = json.loads(run("embed", "--model", EMBEDDER, "--json", "--dimensions", 64, "Hello").stdout)
    assert len(short["embedding"]) == 64
    raw = json.loads(run("embed", "--model", EMBEDDER, "--json", "--no-normalize", "--pooling", "cls", "Hello").stdout)
    assert abs(np.linalg.norm(raw["embedding"]) - 1) > 1e-3
    assert "384 dimensions" in run("embed", "--model", EMBEDDER, "Hello").stdout
    assert_fails(run("embed", "--model", EMBEDDER, "--dimensions", 385, "x"))


# ---- eval and bench ----

TEXT = (
    "The city of Paris lies on the river Seine in the north of France. It has been the capital for many centuries, and "
    "people from all over the world come to see its museums, its bridges and its gardens. ") * 2


def test_eval_nll(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    default = run_json("eval", "nll", "--model", GENERATOR, "--text", tmp_path / "text", "--json")
    exact = run_json("eval", "nll", "--model", GENERATOR, "--text", tmp_path / "text", "--activations", "f32", "--json")
    ids = run_json("tokenize", "--model", GENERATOR, "--json", TEXT)["ids"]
    assert default["tokens"] == exact["tokens"] == len(ids) - 1
    assert 0.5 < exact["mean_nll"] < 4 and default["mean_nll"] == pytest.approx(exact["mean_nll"], abs=0.02)
    (tmp_path / "ids").write_text(json.dumps(ids))
    by_ids = run_json("eval", "nll", "--model", GENERATOR, "--ids", tmp_path / "ids", "--json")
    assert by_ids["mean_nll"] == default["mean_nll"]
    assert_fails(run("eval", "nll", "--model", GENERATOR, "--text", tmp_path / "nothing"), "nothing")
    (tmp_path / "ids").write_text("[1, 99999999]")
    assert_fails(run("eval", "nll", "--model", GENERATOR, "--ids", tmp_path / "ids"))


def test_eval_kl(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    for phase in ("prefill", "decode"):
        measured = run_json("eval", "kl", "--model", GENERATOR, "--text", tmp_path / "text", "--phase", phase, "--json")
        assert 0 < measured["mean_kl"] <= 3e-3 and measured["mean_kl"] <= measured["p99_kl"] <= measured["max_kl"]
        assert measured["same_top"] > 0.95
    same = run_json("eval", "kl", "--model", GENERATOR, "--text", tmp_path / "text", "--reference-activations", "int8",
                    "--json")
    assert same["same_top"] == 1 and same["max_kl"] < 1e-6


def test_bench():
    measured = run_json("bench", "--model", GENERATOR, "--prompt", 32, "--generate", 8, "--batch", 2, "--repeat", 2,
                        "--json")
    for phase in ("prefill", "decode"):
        low, middle, high = (measured[f"{phase}_tokens_per_s{end}"] for end in ("_min", "", "_max"))
        assert 0 < low <= middle <= high
    assert measured["read_bandwidth_percent"] > 0 and measured["batch"] == 2


# ---- the default models ----


def test_pull_has_nothing_to_do():
    for arguments in (["pull"], ["pull", GENERATOR_NAME, EMBEDDER_NAME], ["fetch"], ["list", "--json"]):
        done = run(*arguments, env=clean_environment(PIP_INDEX_URL="http://127.0.0.1:9/simple"))
        assert done.returncode == 0 and str(GENERATOR) in done.stdout and str(EMBEDDER) in done.stdout


def test_a_given_model_fetches_nothing(tmp_path):
    """An empty cache and no network: a path works, a name says what is wrong."""
    lonely = clean_environment(PENSIEVE_CACHE_DIR=str(tmp_path), PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert run("tokenize", "--model", GENERATOR, "Hello", env=lonely).returncode == 0
    assert list(tmp_path.iterdir()) == []
    failed = run("tokenize", "--model", GENERATOR_NAME, "Hello", env=lonely)
    assert failed.returncode == 1 and GENERATOR_NAME in failed.stderr
    assert run_json("list", "--json", env=lonely | {"HOME": str(tmp_path)}) == []


# ---- settings ----


def config_of(*arguments, cwd=None, **environment):
    """{key: (value, source)} of serve --print-config."""
    settings = run_json("serve", "--print-config", "--json", *arguments, env=clean_environment(**environment), cwd=cwd)
    return {key: (setting["value"], setting["source"]) for key, setting in settings.items()}


def test_precedence(tmp_path):
    (tmp_path / "config.toml"
     ).write_text("[server]\nrest_port = 8001\ngrpc_port = 9001\nhost = \"127.0.0.2\"\n[logging]\nlevel = \"warn\"\n")
    settings = config_of("--port", 8003, cwd=tmp_path, AKIDB_REST_PORT="8002", AKIDB_GRPC_PORT="9002")
    assert settings["server.http_port"] == ("8003", "flag --port")
    assert settings["server.grpc_port"] == ("9002", "environment AKIDB_GRPC_PORT")
    assert settings["server.host"] == ('"127.0.0.2"', "config.toml") and settings["logging.level"] == ('"warn"',
                                                                                                       "config.toml")
    assert settings["server.idle_timeout_ms"][1] == "default"
    text = run("serve", "--print-config", "--port", 8003, cwd=tmp_path).stdout
    assert any(line.split() == ["server.http_port", "=", "8003", "#", "flag", "--port"] for line in text.splitlines())


def test_environment_of_both_ancestors():
    settings = config_of(MAX_CONTEXT_LENGTH="2048",
                         GPU_MEMORY_LIMIT="2GB",
                         LOG_LEVEL="debug",
                         MODEL_PATH="/models/a,b.gguf",
                         AKIDB_HOST="127.0.0.1",
                         AKIDB_EMBEDDING_MODEL=EMBEDDER_NAME)
    assert settings["model.context_max"][0] == "2048" and settings["engine.kv_bytes_max"] == (
        str(2 << 30), "environment GPU_MEMORY_LIMIT")
    assert settings["logging.level"] == ('"debug"', "environment LOG_LEVEL")
    assert "/models/a,b.gguf" in settings["model.models"][0] and EMBEDDER_NAME in settings["embedding.model"][0]


@pytest.mark.parametrize("device", ["cuda", "mlx"])
def test_a_device_that_the_program_lacks_is_refused(device):
    for command in (["inspect", GENERATOR], ["run", "-p", "Hi", "--model", GENERATOR], ["serve", "--model", GENERATOR]):
        done = run(*command, "--device", device)
        if f"without {device}" not in done.stderr:
            pytest.skip(f"this program has {device}")
        assert_fails(done, f"without {device}", f"-DPENSIEVE_{device.upper()}=ON")


def test_keys_are_not_shown():
    done = run("serve", "--print-config", "--api-key", "very-secret")
    assert done.returncode == 0 and "very-secret" not in done.stdout + done.stderr and "***" in done.stdout


@pytest.mark.parametrize("arguments, environment, words",
                         [(["--port", "99999"], {}, ["http_port", "99999", "--port"]),
                          (["--port", "8080", "--grpc-port", "8080"], {}, ["http_port", "grpc_port"]),
                          ([], {"PENSIEVE_PORT": "many"}, ["PENSIEVE_PORT", "many"]),
                          (["--body-max", "12XB"], {}, ["body_bytes_max", "12XB"]),
                          (["--config", "/no/such/file.toml"], {}, ["/no/such/file.toml"]),
                          (["--activations", "int3"], {}, ["int3"]),
                          (["--api-key", ""], {}, ["server.api_keys", "must not be empty"]),
                          ([], {"PENSIEVE_API_KEYS": ""}, ["PENSIEVE_API_KEYS", "must not be empty"]), ],
                         ids=lambda value: " ".join(map(str, value)) if value else "-")
def test_bad_settings(arguments, environment, words):
    done = run("serve", "--print-config", *arguments, env=clean_environment(**environment))
    assert done.returncode in (1, 2) and done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr


def test_models_without_a_flag():
    assert config_of("a.gguf", "b")["model.models"] == ('["a.gguf", "b"]', "flag --model")
    assert config_of("b", "--model", "a.gguf")["model.models"][0] == '["a.gguf", "b"]'
    settings = config_of("--memory-gate", "false", "a.gguf", "--allowed-host", "x", "b", "--allowed-host", "y")
    assert settings["model.models"][0] == '["a.gguf", "b"]' and settings["server.allowed_hosts"][0] == '["x", "y"]'


def test_typos_are_shown_with_the_settings(tmp_path):
    (tmp_path / "config.toml").write_text("[server]\nhots = 1\n")
    done = run("serve", "--print-config", cwd=tmp_path, env=clean_environment(PENSIEVE_PROT="1"))
    assert done.returncode == 0 and "server.host" in done.stdout
    assert "warning: " in done.stderr and "server.hots" in done.stderr and "PENSIEVE_PROT" in done.stderr
    assert "settings are read from ./config.toml" in done.stderr


@pytest.mark.parametrize("text", ["title = 'a site'\n[params]\nport = 1\n", "{{ no TOML }}", "host = 1\n"],
                         ids=["site", "broken", "bare"])
def test_the_settings_file_of_another_program(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    for arguments in (["list"], ["tokenize", "-m", GENERATOR_NAME, "abc"], ["inspect", GENERATOR_NAME]):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 0 and done.stderr == "", done.stderr
    done = run("serve", "--print-config", cwd=tmp_path)
    assert done.returncode == 0 and "./config.toml is ignored" in done.stderr


def test_only_serve_reads_the_settings_file(tmp_path):
    (tmp_path / "config.toml").write_text(f'[model]\ncache_dir = "{tmp_path}"\n[server]\nport = "web"\n')
    for arguments in (["list"], ["tokenize", "-m", GENERATOR_NAME, "abc"]):
        assert run(*arguments, cwd=tmp_path, env=clean_environment(PENSIEVE_PORT="many")).returncode == 0
    assert_fails(run("serve", "--print-config", cwd=tmp_path), "server.http_port", "config.toml")


def test_bad_toml(tmp_path):
    (tmp_path / "config.toml").write_text("[server\nport = 1\n")
    done = run("serve", "--print-config", cwd=tmp_path)
    assert_fails(done, "config.toml", "line 1")


# ---- bad model files ----


def bad_models(tmp_path):
    """(name, path, words the message must hold)"""
    head = GENERATOR.read_bytes()[:3_000_000]
    whole_size = GENERATOR.stat().st_size

    def gguf(name, content):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        return path

    yield "missing", tmp_path / "missing.gguf", ["missing.gguf"]
    yield "empty", gguf("empty", b""), ["empty.gguf"]
    yield "text", gguf("text", b"this is no model at all\n" * 100), ["text.gguf"]
    yield "truncated_head", gguf("truncated_head", head[:1000]), ["truncated_head.gguf"]
    yield "truncated_data", gguf("truncated_data", head), ["truncated_data.gguf"]
    sparse = gguf("one_byte_short", b"")
    with open(sparse, "r+b") as file:  # the size of the real file less one byte; zeros cost no disk
        file.write(head)
        file.truncate(whole_size - 1)
    yield "one_byte_short", sparse, ["one_byte_short.gguf"]
    yield "version", gguf("version", head[:4] + b"\x09\0\0\0" + head[8:]), ["version.gguf", "version"]
    yield "counts", gguf("counts", head[:8] + b"\xff" * 16 + head[24:]), ["counts.gguf"]
    other = head.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0zebra", 1)
    assert other != head
    path = gguf("architecture", other)
    os.truncate(path, whole_size)
    yield "architecture", path, ["architecture.gguf", "zebra"]
    (tmp_path / "nothing").mkdir()
    yield "empty_directory", tmp_path / "nothing", ["nothing"]

    llama, tensors = model_files.LLAMA, model_files.llama_tensors()
    write = model_files.write_llama
    yield "no_weights", write(tmp_path / "no_weights", weights=...), ["no_weights", "safetensors"]
    yield "no_tokenizer", write(tmp_path / "no_tokenizer", tokenizer=...), ["tokenizer"]
    yield "no_config", write(tmp_path / "no_config", config=...), ["no_config"]
    yield "unknown_type", write(tmp_path / "unknown_type",
                                {**llama, "model_type": "zebra", "architectures": ["ZebraForCausalLM"]}), ["zebra"]
    yield "no_hidden_size", write(tmp_path / "no_hidden_size", {k: v
                                                                for k, v in llama.items()
                                                                if k != "hidden_size"},
                                  tensors=tensors), ["config.json", "hidden_size"]
    yield "absurd_layers", write(tmp_path / "absurd_layers", {**llama, "num_hidden_layers": 10**9},
                                 tensors=tensors), ["num_hidden_layers"]
    yield "negative", write(tmp_path / "negative", {**llama, "num_attention_heads": -4},
                            tensors=tensors), ["num_attention_heads"]
    yield "missing_tensor", write(tmp_path / "missing_tensor",
                                  tensors={k: v
                                           for k, v in tensors.items()
                                           if "layers.1.mlp.up" not in k}), ["model.layers.1.mlp.up_proj"]
    yield "wrong_shape", write(tmp_path / "wrong_shape", {**llama, "intermediate_size": 96}, tensors=tensors), ["mlp"]
    yield "vocabulary", write(tmp_path / "vocabulary", {**llama, "vocab_size": 100},
                              tensors=model_files.llama_tensors(vocab_size=100)), ["vocab"]
    whole = model_files.safetensors_bytes(tensors)
    yield "cut_weights", write(tmp_path / "cut_weights", weights=whole[:-1]), ["model.safetensors"]
    yield "cut_header", write(tmp_path / "cut_header", weights=whole[:50]), ["model.safetensors"]
    yield "long_header", write(tmp_path / "long_header", weights=b"\xff" * 8 + whole[8:]), ["model.safetensors"]

    def overlap(header):
        names = list(header)
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]

    def outside(header):
        header["model.norm.weight"]["data_offsets"] = [1 << 50, (1 << 50) + 256]

    def absurd(header):
        header["model.norm.weight"]["shape"] = [1 << 62, 1 << 62]

    for name, change in (("overlap", overlap), ("outside", outside), ("absurd", absurd)):
        yield name, write(tmp_path / name, weights=model_files.safetensors_bytes(tensors,
                                                                                 change)), ["model.safetensors"]


def test_bad_model_files(tmp_path):
    for name, path, words in bad_models(tmp_path):
        for command in (["run", path, "--prompt", "x", "--max-tokens",
                         1], ["serve", "--model", path, "--port", 0, "--grpc-port", 0]):
            done = run(*command)
            assert done.returncode == 1, (name, command[0], done.returncode, done.stdout, done.stderr)
            last = done.stderr.strip().splitlines()[-1]
            assert all(word in last for word in words), (name, command[0], done.stderr)


def test_a_small_model_of_ones_own(tmp_path, start_server):
    """The good form of the bad files above: runs, and is served under its directory's name."""
    path = model_files.write_llama(tmp_path / "tiny-llama")
    assert run_json("inspect", "--json", path)["architecture"] == "llama"
    answer = run_json("run", path, "--raw", "--prompt", "abc", "-t", 0, "-n", 5, "--json")
    assert len(answer["tokens"]) == 5
    tiny = start_server("--model", path)
    models = [model["id"] for model in tiny.get("/v1/models").json()["data"]]
    assert models == ["tiny-llama"]
    answered = tiny.post("/v1/completions", {"model": "tiny-llama", "prompt": "abc", "max_tokens": 5, "temperature": 0})
    assert answered.status_code == 200 and answered.json()["usage"]["completion_tokens"] == 5
    assert tiny.post("/api/v1/embed", {"texts": ["x"]}).status_code in (400, 404)
