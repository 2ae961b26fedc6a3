"""The Ollama dialect through Ollama's own client."""
import json

import numpy as np
import ollama
import pytest
import requests

from harness import ANSWER, EMBEDDER_NAME, GENERATOR_NAME, OPENING, QUESTION

ASKED = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 32}


@pytest.fixture
def client(server):
    return ollama.Client(host=server.url)


def test_chat(client):
    answer = client.chat(GENERATOR_NAME, ASKED, options=GREEDY, keep_alive="10m")
    assert answer.message.content == ANSWER and answer.message.role == "assistant"
    assert answer.done and answer.done_reason == "stop"
    assert answer.prompt_eval_count > 0 and answer.eval_count > 0
    assert answer.total_duration >= answer.eval_duration > 0
    cut = client.chat(GENERATOR_NAME, ASKED, options={**GREEDY, "num_predict": 2})
    assert cut.done_reason == "length" and cut.eval_count == 2


def test_chat_stream(client, server):
    pieces = list(client.chat(GENERATOR_NAME + ":latest", ASKED, options=GREEDY, stream=True))
    assert "".join(piece.message.content for piece in pieces) == ANSWER
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    answer = server.post("/api/chat", {"model": GENERATOR_NAME, "messages": ASKED, "options": GREEDY})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"]


def test_generate(client):
    answer = client.generate(GENERATOR_NAME, QUESTION, options=GREEDY)
    assert answer.response == ANSWER
    streamed = client.generate(GENERATOR_NAME, QUESTION, options=GREEDY, stream=True)
    assert "".join(piece.response for piece in streamed) == ANSWER
    raw = client.generate(GENERATOR_NAME, OPENING, raw=True, options={**GREEDY, "num_predict": 4})
    assert "Tokyo" in raw.response
    assert client.generate(GENERATOR_NAME).done_reason == "load"
    assert client.generate(GENERATOR_NAME, keep_alive=0).done_reason == "unload"


def test_logprobs(client):
    answer = client.chat(GENERATOR_NAME, ASKED, options=GREEDY, logprobs=True, top_logprobs=2)
    assert "".join(entry.token for entry in answer.logprobs) == ANSWER
    assert all(len(entry.top_logprobs) == 2 for entry in answer.logprobs)


def test_tools_are_shown(client):
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        Args:
          a: The first
          b: The second
        """
        return a + b

    plain = client.chat(GENERATOR_NAME, ASKED, options=GREEDY)
    answer = client.chat(GENERATOR_NAME, ASKED, tools=[add], options=GREEDY)
    assert answer.prompt_eval_count > plain.prompt_eval_count
    messages = ASKED + [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]},
                          {"role": "tool", "tool_name": "add", "content": "3"}]
    assert client.chat(GENERATOR_NAME, messages, tools=[add], options=GREEDY).done


def test_embeddings(client):
    both = client.embed(EMBEDDER_NAME, ["Hello", "World"])
    assert np.array(both.embeddings).shape == (2, 384) and both.prompt_eval_count == 6
    assert client.embed(EMBEDDER_NAME, "Hello").embeddings[0] == both.embeddings[0]
    assert client.embeddings(EMBEDDER_NAME, "World").embedding == both.embeddings[1]
    assert np.array(client.embed(EMBEDDER_NAME, "Hello", dimensions=8).embeddings).shape == (1, 8)
    assert client.embed(EMBEDDER_NAME, []).embeddings == []
    assert client.embed(EMBEDDER_NAME, "word " * 2000).prompt_eval_count <= 512
    with pytest.raises(ollama.ResponseError):
        client.embed(EMBEDDER_NAME, "word " * 2000, truncate=False)


def test_models(client, server):
    names = {model.model for model in client.list().models}
    assert names == {GENERATOR_NAME, EMBEDDER_NAME} == {model.model for model in client.ps().models}
    assert all(model.size > 0 and model.details.family for model in client.list().models)
    shown = client.show(GENERATOR_NAME)
    assert "completion" in shown.capabilities and shown.template
    assert shown.modelinfo[shown.details.family + ".context_length"] == 8192
    assert client.show(EMBEDDER_NAME).capabilities == ["embedding"]
    assert server.get("/api/version").json()["version"]
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("no-such-model")
    assert caught.value.status_code == 404


def test_the_root_says_what_its_clients_look_for(server):
    answer = requests.get(server.url + "/", headers={"user-agent": "ollama/0.9 (amd64 linux)"}, timeout=30)
    assert answer.text == "Ollama is running"
    assert requests.head(server.url + "/", timeout=30).status_code == 200


@pytest.mark.parametrize("path, body, status", [("/api/chat", {"messages": ASKED}, 400), ("/api/chat", {"model": EMBEDDER_NAME, "messages": ASKED}, 400),
                                                ("/api/generate", {"model": GENERATOR_NAME, "prompt": "x", "context": [1]}, 400),
                                                ("/api/generate", {"model": GENERATOR_NAME, "prompt": "x", "suffix": "y"}, 400),
                                                ("/api/embed", {"model": EMBEDDER_NAME}, 400), ("/api/pull", {"model": "x"}, 404)],
                         ids=lambda value: str(value)[:40])
def test_errors_have_its_shape(server, path, body, status):
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"] and isinstance(answer.json()["error"], str)
