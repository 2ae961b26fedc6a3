"""Tiny models of every family, served: what the unit tests prove of the networks must survive the way to a client."""
import json
import math
import shutil

import pytest
from harness import DATA, run, run_json

MODELS = DATA / "models"
TOKENS = json.loads((MODELS / "tiny_golden.json").read_text())["tokens"]


def normalized(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def cosine(a, b):
    return sum(x * y for x, y in zip(normalized(a), normalized(b)))


def served(server):
    """The name of the tiny model, beside which a default one may be served."""
    (name,) = [model["id"] for model in server.get("/v1/models").json()["data"] if "tiny" in model["id"].lower()]
    return name


def embed(server, inputs):
    answer = server.post("/v1/embeddings", {"model": served(server), "input": inputs})
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


@pytest.mark.parametrize(
    "name", ["tiny-gemma2", "tiny-gemma3", "tiny-gemma3-mlx", "tiny-gemma3.gguf", "tiny-ministral3", "tiny-phi3"])
def test_generators_answer(name):
    question = ["run", MODELS / name, "--raw", "--prompt", "abc", "-t", 0, "-n", 5, "--json"]
    answer = run_json(*question, "--activations", "f32")
    assert len(answer["tokens"]) <= 5
    reference = run_json(*question, "--reference")
    assert answer["tokens"] == reference["tokens"]


@pytest.mark.parametrize("name", ["tiny-embeddinggemma", "tiny-embeddinggemma-mlx", "tiny-embeddinggemma.gguf"])
def test_embedding_gemma(name, start_server):
    golden = json.loads((MODELS / "decoders_golden.json").read_text())["models"][name]["vector"]
    server = start_server("--model", MODELS / name, "--activations", "f32")
    vectors = embed(server, [TOKENS, TOKENS[:7]])
    assert cosine(vectors[0], golden) > 0.9999999
    assert embed(server, [TOKENS[:7]])[0] == vectors[1]
    facts = run_json("inspect", "--json", MODELS / name)
    assert facts["task"] == "embed" and facts["kv_bytes_per_token"] == 0


def test_qwen_embedding(tmp_path, start_server):
    golden = json.loads((MODELS / "tiny_golden.json").read_text())["models"]["tiny-qwen3"]["last_hidden"]
    path = tmp_path / "Qwen3-Embedding-tiny"
    shutil.copytree(MODELS / "tiny-qwen3", path)
    by_name = start_server("--model", path, "--activations", "f32", "--kv-dtype", "f32")
    assert cosine(embed(by_name, [TOKENS])[0], golden) > 0.9999999
    # A text is closed by the end token; token ids are taken as they are.
    ids = run_json("tokenize", "--model", path, "--json", "abc")["ids"]
    closed, opened, text = embed(by_name, [ids + [1]])[0], embed(by_name, [ids])[0], embed(by_name, ["abc"])[0]
    assert text == closed != opened
    # A decoder that says nothing embeds when it is named as the embedding model, and only then.
    named = start_server("--embedding-model", MODELS / "tiny-qwen3", "--activations", "f32", "--kv-dtype", "f32")
    assert cosine(embed(named, [TOKENS])[0], golden) > 0.9999999
    plain = start_server("--model", MODELS / "tiny-qwen3")
    assert plain.post("/v1/embeddings", {"model": served(plain), "input": "abc"}).status_code in (400, 404)


def test_the_exact_mode_keeps_keys_and_values_in_f32(start_server):
    def logprobs(*flags):
        server = start_server("--model", MODELS / "tiny-llama", "--activations", "f32", *flags)
        answer = server.post("/v1/completions", {"model": served(server), "prompt": TOKENS, "max_tokens": 8,
                                                 "temperature": 0, "logprobs": 2})
        return answer.json()["choices"][0]["logprobs"]["token_logprobs"]

    exact = logprobs()
    assert exact == logprobs("--kv-dtype", "f32")
    assert exact != logprobs("--kv-dtype", "f16")


def test_longrope_setting():
    facts = run("serve", "--print-config", "--longrope", "mlx")
    assert facts.returncode == 0 and "longrope" in facts.stdout
    refused = run("serve", "--print-config", "--longrope", "both")
    assert refused.returncode != 0 and "longrope" in refused.stderr


def test_kv_memory_is_what_inspect_says(start_server):
    """A pool of just the bytes that inspect counts holds one sequence of the whole context."""
    facts = run_json("inspect", "--json", MODELS / "tiny-gemma3", "--context", 128)
    server = start_server("--model", MODELS / "tiny-gemma3", "--kv-memory", facts["kv_bytes"], "--kv-dtype", "f16")
    total = server.metric("pensieve_kv_blocks_total")
    assert total * 32 * facts["kv_bytes_per_token"] == facts["kv_bytes"]
    prompt = (TOKENS * 4)[:100]
    body = {"model": served(server), "prompt": prompt, "max_tokens": 100, "temperature": 0}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total_tokens"] <= 128


# ---- files as people have them ----


def test_warnings_of_the_loaders_are_seen(tmp_path, start_server):
    """An unknown way to split words is used by its default, and whoever looks at the model is told."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes((MODELS / "tiny-qwen3.gguf").read_bytes().replace(b"gpt-2", b"zzz-9", 1))
    words = 'warning: {}: tokenizer.ggml.pre "zzz-9" is not known'.format(path)
    for command in (["tokenize", "--model", path, "abc"], ["inspect", path], ["render", "--model", path, "a"],
                    ["run", "--model", path, "--raw", "--prompt", "abc", "-n", 1]):
        done = run(*command)
        expected = words.replace(f"{path}: ", "") if command[0] == "tokenize" else words
        assert expected in done.stderr, done.stderr
    assert "zzz-9" in run_json("inspect", "--json", path)["warnings"][0]
    server = start_server("--model", path)
    assert 'tokenizer.ggml.pre "zzz-9" is not known' in server.log().replace('\\"', '"')
    assert run_json("inspect", "--json", MODELS / "tiny-qwen3.gguf")["warnings"] == []


def test_a_directory_with_a_gguf_model_among_other_files(tmp_path):
    shutil.copy(MODELS / "tiny-qwen3.gguf", tmp_path / "model.GGUF")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mmproj.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = run("inspect", tmp_path / "mmproj.gguf")
    assert done.returncode == 1 and "git-lfs pointer" in done.stderr
    assert run_json("inspect", "--json", tmp_path)["architecture"] == "qwen3"
    assert run("tokenize", "--model", tmp_path, "abc").stdout == run("tokenize", "--model", MODELS / "tiny-qwen3.gguf",
                                                                     "abc").stdout
