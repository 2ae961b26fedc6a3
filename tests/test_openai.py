"""The OpenAI dialect through the official SDK: chat, completions, embeddings, models, errors."""
import base64
import json

import numpy as np
import openai
import pytest

from harness import (ANSWER, DATA, EMBEDDER, EMBEDDER_NAME, GENERATOR, GENERATOR_NAME, OPENING, QUESTION,
                     REFERENCE_QUESTION, run_json)

ASKED = [{"role": "user", "content": QUESTION}]


def chat(client, messages=ASKED, **fields):
    return client.chat.completions.create(
        **{"model": GENERATOR_NAME, "messages": messages, "temperature": 0, "max_completion_tokens": 32, **fields})


# ---- chat ----


def test_chat(openai_client):
    answer = chat(openai_client)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id.startswith("req_")


def test_chat_stream(openai_client):
    chunks = list(chat(openai_client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.prompt_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_chat_stream_ends_with_done(server):
    answer = server.post("/v1/chat/completions",
                         {"model": GENERATOR_NAME, "messages": ASKED, "max_tokens": 3, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    records = answer.content.decode().split("\n\n")
    assert records[-1] == "" and records[-2] == "data: [DONE]"
    for record in records[:-2]:
        assert record.startswith((": ", "data: "))
        if record.startswith("data: "):
            assert json.loads(record[6:])["object"] == "chat.completion.chunk"


def test_chat_length_stop_and_logprobs(openai_client):
    short = chat(openai_client, max_completion_tokens=3, logprobs=True, top_logprobs=4)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3
    entries = short.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == short.choices[0].message.content
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 4
        assert entry.top_logprobs[0].token == entry.token  # greedy
        assert [top.logprob for top in entry.top_logprobs] == sorted((top.logprob for top in entry.top_logprobs),
                                                                     reverse=True)
    stopped = chat(openai_client, stop=[" Japan"])
    assert stopped.choices[0].message.content == "The capital of" and stopped.choices[0].finish_reason == "stop"


def test_first_token_is_as_likely_as_in_the_reference(openai_client):
    """A float reference gives "The" -1.883 and "L" -1.965 nats here; int8 activations may move that a little."""
    top = chat(openai_client, messages=[{"role": "user", "content": REFERENCE_QUESTION}], max_completion_tokens=1,
               logprobs=True, top_logprobs=5).choices[0].logprobs.content[0].top_logprobs
    found = {entry.token: entry.logprob for entry in top}
    assert found["The"] == pytest.approx(-1.883, abs=0.06)
    assert found["L"] == pytest.approx(-1.965, abs=0.06)


def test_seed_and_logit_bias(openai_client, server):
    def draw(seed):
        return chat(openai_client, temperature=1.5, seed=seed, max_completion_tokens=12).choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(6)}) > 1
    the = server.post("/v1/completions", {"model": GENERATOR_NAME, "prompt": "x", "max_tokens": 1})
    assert the.status_code == 200
    first = chat(openai_client, max_completion_tokens=1, logprobs=True).choices[0].logprobs.content[0].token
    banned = chat(openai_client, max_completion_tokens=1, logit_bias={str(token_id(first)): -100})
    assert banned.choices[0].message.content != first


def token_id(text):
    ids = run_json("tokenize", "--model", GENERATOR, "--json", "--no-special", text)["ids"]
    assert len(ids) == 1
    return ids[0]


def test_chat_shapes_are_accepted(openai_client):
    tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
             {"type": "custom", "custom": {"name": "x"}}]
    messages = [{"role": "developer", "content": "Be brief."}, {
        "role": "user", "content": [{"type": "text", "text": "What time is it?"},
                                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    }, {
        "role": "assistant", "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    }, {"role": "tool", "tool_call_id": "call_1", "content": "noon"}, ]
    answer = chat(openai_client,
                  messages,
                  tools=tools,
                  tool_choice="auto",
                  parallel_tool_calls=False,
                  user="u",
                  metadata={"a": "b"},
                  store=False,
                  service_tier="auto",
                  max_completion_tokens=4,
                  presence_penalty=0.1,
                  frequency_penalty=0.1,
                  extra_body={"min_p": 0.05, "repetition_penalty": 1.1, "top_k": 40, "no_such_field": 1})
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


# ---- completions ----


def test_completion(openai_client):
    fields = {"model": GENERATOR_NAME, "prompt": OPENING, "max_tokens": 6, "temperature": 0}
    answer = openai_client.completions.create(**fields, logprobs=2)
    choice = answer.choices[0]
    assert answer.object == "text_completion" and "Tokyo" in choice.text
    assert "".join(choice.logprobs.tokens) == choice.text and len(choice.logprobs.top_logprobs[0]) >= 2
    streamed = "".join(chunk.choices[0].text
                       for chunk in openai_client.completions.create(**fields, stream=True)
                       if chunk.choices)
    assert streamed == choice.text


def test_a_completion_ends_at_16_tokens_unless_asked_for_more(openai_client):
    stops = [token["id"] for token in run_json("inspect", "--json", GENERATOR)["special_tokens"]["stop"]]
    fields = {"model": GENERATOR_NAME, "prompt": OPENING, "logit_bias": {str(id): -100 for id in stops}}
    answer = openai_client.completions.create(**fields)
    assert answer.usage.completion_tokens == 16 and answer.choices[0].finish_reason == "length"
    assert openai_client.completions.create(**fields, max_tokens=20).usage.completion_tokens == 20


def test_exact_mode_goes_the_references_way(start_server):
    """64 greedy tokens of a float reference over the same weights (tools/golden_smollm2.py)."""
    golden = json.loads((DATA / "models" / "smollm2_golden.json").read_text())
    exact = start_server("--activations", "f32", "--kv-dtype", "f32")
    answer = exact.post("/v1/completions", {
        "model": GENERATOR_NAME, "prompt": golden["greedy_prompt"], "temperature": 0, "max_tokens": len(
            golden["greedy"])
    }).json()
    want = run_json("tokenize", "--model", GENERATOR, "--decode", "--json", "--no-special",
                    json.dumps(golden["greedy"]))["text"]
    assert answer["usage"]["completion_tokens"] == len(golden["greedy"]) and answer["choices"][0]["text"] == want


# ---- embeddings ----


def embed(client, texts, **fields):
    fields.setdefault("encoding_format", "float")
    return client.embeddings.create(model=EMBEDDER_NAME, input=texts, **fields)


def test_embeddings(openai_client):
    texts = ["The cat sits on the mat.", "A feline rests on the carpet.", "The stock market fell."]
    answer = embed(openai_client, texts)
    vectors = np.array([entry.embedding for entry in answer.data])
    assert vectors.shape == (3, 384) and [entry.index for entry in answer.data] == [0, 1, 2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert answer.model == EMBEDDER_NAME
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15


def test_embeddings_as_base64_are_the_same_bits(openai_client, server):
    floats = np.array(embed(openai_client, "bits").data[0].embedding, np.float32)
    coded = server.post("/v1/embeddings", {"model": EMBEDDER_NAME, "input": "bits", "encoding_format": "base64"}).json()
    assert np.array_equal(np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4"), floats)
    # The SDK asks for base64 by itself and decodes it.
    assert openai_client.embeddings.create(model=EMBEDDER_NAME,
                                           input="bits").data[0].embedding == pytest.approx(floats.tolist(), abs=0)


def test_embeddings_of_token_ids(openai_client, server):
    ids = run_json("tokenize", "--model", EMBEDDER, "--json", "Hello world")["ids"]
    by_text = embed(openai_client, "Hello world")
    by_ids = embed(openai_client, [ids, ids])
    assert by_ids.data[0].embedding == by_ids.data[1].embedding == by_text.data[0].embedding
    assert embed(openai_client, ids).data[0].embedding == by_text.data[0].embedding


def test_long_texts_are_cut_as_the_model_is_made_to_and_that_is_told(openai_client, server):
    request = {"model": EMBEDDER_NAME, "input": ["short", "word " * 300]}
    answer = server.post("/v1/embeddings", request).json()
    assert "truncated" not in answer["data"][0]
    assert answer["data"][1]["truncated"] == {"tokens": 302, "used": 256}
    assert answer["usage"]["prompt_tokens"] == 3 + 256
    cut = embed(openai_client, "word " * 254).data[0].embedding
    assert answer["data"][1]["embedding"] == pytest.approx(cut, abs=0)
    refused = server.post("/v1/embeddings", {**request, "truncate": False})
    assert refused.status_code == 400 and "302 tokens > 256" in refused.json()["error"]["message"]


def test_embedding_dimensions(server):
    def ask(**fields):
        return server.post("/v1/embeddings", {"model": EMBEDDER_NAME, "input": "Hello", **fields})

    whole = np.array(ask().json()["data"][0]["embedding"])
    part = np.array(ask(dimensions=128).json()["data"][0]["embedding"])
    assert part.shape == (128, )
    assert part == pytest.approx(whole[:128] / np.linalg.norm(whole[:128]), abs=1e-6)
    for dimensions in (0, -1, 385, "many", 1.5):
        answer = ask(dimensions=dimensions)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "dimensions", answer.text


@pytest.mark.parametrize("fields, param", [({"input": []}, "input"), ({"input": ...}, "input"), ({"input": 5}, "input"),
                                           ({"input": [{}]}, None), ({"input": [[]]}, None), ({"input": [10**6]}, None),
                                           ({"input": [-1]}, None), ({"encoding_format": "int8"}, "encoding_format"),
                                           ({"model": ...}, "model"), ({"input": "word " * 5000, "truncate": False}, None), ],
                         ids=lambda value: json.dumps(value, default=str)[:40])
def test_bad_embedding_requests(server, fields, param):
    request = {
        name: value
        for name, value in {"model": EMBEDDER_NAME, "input": "x", **fields}.items()
        if value is not ...
    }
    answer = server.post("/v1/embeddings", request)
    assert answer.status_code == 400, answer.text[:200]
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]
    if param:
        assert error["param"] == param


# ---- models and errors ----


def test_models(openai_client):
    models = openai_client.models.list().data
    assert {model.id for model in models} == {GENERATOR_NAME, EMBEDDER_NAME}
    assert all(model.object == "model" and model.created > 0 for model in models)
    assert openai_client.models.retrieve(EMBEDDER_NAME).id == EMBEDDER_NAME


def test_names_of_models(openai_client):
    """Letter case and number formats are no part of a name, and the only model of its kind answers to every name."""
    for name in (GENERATOR_NAME.upper() + "-GGUF:Q4_K_M", "HuggingFaceTB/SmolLM2-135M-Instruct", "no-such-model"):
        assert chat(openai_client, model=name).choices[0].message.content == ANSWER
    assert openai_client.embeddings.create(model="text-embedding-3-small", input="x").model == EMBEDDER_NAME
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"


def test_aliases_and_strict_names(start_server):
    strict = start_server("--strict-names=true", "--alias", f"gpt-*={GENERATOR_NAME}", "--alias", f"ada={EMBEDDER_NAME}")
    with openai.OpenAI(base_url=strict.url + "/v1", api_key="local", max_retries=0) as client:
        assert chat(client, model="gpt-4o").choices[0].message.content == ANSWER
        assert client.embeddings.create(model="ada", input="x").model == EMBEDDER_NAME
        assert client.models.retrieve("gpt-5").id == GENERATOR_NAME
        for call in (lambda: chat(client, model="no-such-model"),
                     lambda: client.embeddings.create(model="no-such-model", input="x")):
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            assert caught.value.code == "model_not_found"


def test_several_choices(openai_client):
    answer = chat(openai_client, n=3, temperature=1, seed=5, max_completion_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    one = chat(openai_client, temperature=1, seed=5, max_completion_tokens=12)
    assert answer.choices[0].message.content == one.choices[0].message.content
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    texts = ["", "", ""]
    finished = []
    for chunk in chat(openai_client, n=3, temperature=1, seed=5, max_completion_tokens=12, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finished += [choice.index] if choice.finish_reason else []
    assert texts == [choice.message.content for choice in answer.choices]
    assert sorted(finished) == [0, 1, 2]


def test_lists_of_prompts_and_echo(openai_client):
    ids = run_json("tokenize", "--model", GENERATOR, "--json", OPENING)["ids"]
    fields = {"model": GENERATOR_NAME, "temperature": 0, "max_tokens": 4}
    answer = openai_client.completions.create(prompt=[OPENING, "One, two,"], n=2, echo=True, **fields)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] and texts[0].startswith(OPENING)
    assert texts[2] == texts[3] and texts[2].startswith("One, two,")
    by_ids = openai_client.completions.create(prompt=[ids, ids], **fields)
    alone = openai_client.completions.create(prompt=OPENING, **fields)
    assert [choice.text for choice in by_ids.choices] == [alone.choices[0].text] * 2
    assert texts[0] == OPENING + alone.choices[0].text
    assert by_ids.usage.prompt_tokens == 2 * alone.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="suffix"):
        openai_client.completions.create(prompt="def f():", suffix="return x", **fields)


def test_the_wrong_kind_of_model(openai_client):
    for call in (lambda: chat(openai_client, model=EMBEDDER_NAME),
                 lambda: openai_client.embeddings.create(model=GENERATOR_NAME, input="x")):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            call()


@pytest.mark.parametrize(
    "fields",
    [{"messages": []}, {"messages": ...}, {"model": ...}, {"temperature": 9}, {"n": 0}, {"stop": [""]},
     {"max_tokens": "x"}, {"messages": [{"role": "user"}]}, {"messages": [{"role": "x", "content": "y"}]},
     {"top_logprobs": 3}, {"logit_bias": {"x": 1}}, {"messages": [{"role": "user", "content": "word " * 20000}]}, ],
    ids=lambda value: json.dumps(value, default=str)[:40])
def test_bad_chat_requests(server, fields):
    request = {
        name: value
        for name, value in {"model": GENERATOR_NAME, "messages": ASKED, **fields}.items()
        if value is not ...
    }
    answer = server.post("/v1/chat/completions", request)
    assert answer.status_code == 400, answer.text[:200]
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")


def test_wrong_method(server):
    answer = server.get("/v1/chat/completions")
    assert answer.status_code == 405 and "error" in answer.json() and "POST" in answer.headers["allow"]
