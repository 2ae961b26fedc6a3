"""One number of a model's weights is NaN: whoever asks gets an error, never an answer made of what was computed."""
import json
import math
import shutil
import struct

import model_files
import pytest
from harness import DATA, run

TEXT = "one two three"


def damage(path, tensor):
    """Writes NaN over the first value of a tensor of a safetensors file."""
    data = bytearray(path.read_bytes())
    (length, ) = struct.unpack_from("<Q", data)
    entry = json.loads(data[8:8 + length])[tensor]
    nan = {"F32": struct.pack("<f", math.nan), "F16": struct.pack("<e", math.nan)}[entry["dtype"]]
    begin = 8 + length + entry["data_offsets"][0]
    data[begin:begin + len(nan)] = nan
    path.write_bytes(data)


@pytest.fixture
def encoder(tmp_path):
    path = tmp_path / "damaged-bert"
    shutil.copytree(DATA / "models" / "tiny-bert", path)
    damage(path / "model.safetensors", "bert.encoder.layer.0.output.LayerNorm.bias")
    return path


@pytest.fixture
def generator(tmp_path):
    path = model_files.write_llama(tmp_path / "damaged-llama")
    damage(path / "model.safetensors", "model.layers.1.input_layernorm.weight")
    return path


def test_embed_routes(encoder, start_server):
    grpc = pytest.importorskip("grpc")
    server = start_server("--model", encoder)
    body = {"model": "damaged-bert", "input": [TEXT, "four"]}
    for fields in ({}, {"encoding_format": "base64"}, {"dimensions": 2}):
        answer = server.post("/v1/embeddings", body | fields)
        assert answer.status_code == 500, answer.text
        assert answer.json()["error"]["type"] == "server_error" and "NaN" in answer.json()["error"]["message"]
    for pooling in ("mean", "cls", "last", "max"):
        answer = server.post("/api/v1/embed", {"texts": [TEXT], "pooling": pooling})
        assert answer.status_code == 500 and "NaN" in answer.json()["error"], (pooling, answer.text)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/akidb.embedding.v1.EmbeddingService/Embed")
        with pytest.raises(grpc.RpcError) as failed:
            call(b"\x0a\x03abc", timeout=60)
        assert failed.value.code() == grpc.StatusCode.INTERNAL and "NaN" in failed.value.details()
    assert server.get("/health").status_code == 200


def test_embed_command(encoder):
    done = run("embed", "--model", encoder, TEXT)
    assert done.returncode == 1 and done.stdout == "" and "NaN" in done.stderr, done.stdout + done.stderr


def test_generation(generator, start_server):
    server = start_server("--model", generator)
    body = {"model": "damaged-llama", "prompt": "abc", "max_tokens": 5}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 500 and "NaN" in answer.json()["error"]["message"]
    stream = server.post("/v1/completions", body | {"stream": True}).text
    assert '"error"' in stream and "NaN" in stream and "[DONE]" not in stream
    assert server.get("/health").status_code == 200


def test_generation_commands(generator, tmp_path):
    done = run("run", generator, "--raw", "--prompt", "abc", "-n", 5)
    assert done.returncode == 1 and "NaN" in done.stderr, done.stdout + done.stderr
    text = tmp_path / "text"
    text.write_text("abcdefgh")
    done = run("eval", "nll", "--model", generator, "--text", text)
    assert done.returncode == 1 and done.stdout == "" and "NaN" in done.stderr, done.stdout + done.stderr
