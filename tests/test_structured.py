"""Answers that must have a form: schemas, patterns, grammars and demanded calls, drawn at temperature 1 by the real model."""
import concurrent.futures
import json
import random
import re

import jsonschema
import openai
import pytest

from harness import GENERATOR_NAME
from schemas import PERSON, random_schema

CONTENT = [{"role": "user", "content": "Invent something short."}]
TOOLS = [{
    "type": "function",
    "function": {
        "name": name,
        "description": "Looks something up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
} for name in ("weather", "traffic")]


def validator(schema):
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def ask(server, **fields):
    body = {"model": GENERATOR_NAME, "messages": CONTENT, "temperature": 1, "max_completion_tokens": 400, **fields}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return choice["message"], choice["finish_reason"]


def json_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}


def ask_many(tasks):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda task: task(), tasks))


def test_every_answer_satisfies_its_schema(server):
    check = validator(PERSON)
    answers = ask_many([
        lambda seed=seed: ask(server, seed=seed, response_format=json_schema(PERSON)) for seed in range(16)
    ])
    for message, reason in answers:
        assert reason == "stop", message
        check.validate(json.loads(message["content"]))


@pytest.mark.parametrize("part", range(2))
def test_random_schemas(server, part):
    schemas = [random_schema(random.Random(100 * part + i)) for i in range(20)]
    answers = ask_many([
        lambda i=i, schema=schema: ask(server, seed=i, temperature=1.5, response_format=json_schema(schema))
        for i, schema in enumerate(schemas)
    ])
    for schema, (message, reason) in zip(schemas, answers):
        assert reason == "stop", (schema, message)
        validator(schema).validate(json.loads(message["content"]))


def test_streamed_answers_satisfy_it_too(openai_client):
    check = validator(PERSON)
    for seed in range(4):
        stream = openai_client.chat.completions.create(model=GENERATOR_NAME, messages=CONTENT, temperature=1, seed=seed,
                                                       stream=True, response_format=json_schema(PERSON))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        check.validate(json.loads(text))


def test_json_object(server):
    for message, reason in ask_many([
            lambda seed=seed: ask(server, seed=seed, response_format={"type": "json_object"}, max_completion_tokens=200)
            for seed in range(6)
    ]):
        if reason == "stop":
            assert isinstance(json.loads(message["content"]), dict)
        else:
            assert reason == "length" and message["content"].startswith("{")


def test_regex_and_grammar(server):
    pattern = "[A-Z]{3}-\\d{2,4}( \u20ac)?"
    grammar = 'root ::= "(" (root | [a-c]{1,3}) ")"'
    for seed in range(4):
        message, reason = ask(server, seed=seed, response_format={"type": "regex", "pattern": pattern})
        assert reason == "stop" and re.fullmatch(pattern, message["content"])
        message, _ = ask(server, seed=seed, response_format={"type": "grammar", "grammar": grammar}, max_completion_tokens=60)
        assert re.match(r"^\(+([a-c]{1,3}\)*)?$", message["content"])


def test_anthropic_format(anthropic_client):
    message = anthropic_client.messages.create(model="claude-x", max_tokens=400, messages=CONTENT, extra_body={"temperature": 1},
                                               output_config={"format": {"type": "json_schema", "schema": PERSON}})
    validator(PERSON).validate(json.loads(message.content[0].text))


def test_the_beginning_of_an_answer_counts(server):
    beginning = '{"age": 3, '
    body = {"model": "claude-x", "max_tokens": 400, "temperature": 1,
            "messages": CONTENT + [{"role": "assistant", "content": beginning}],
            "output_config": {"format": {"type": "json_schema", "schema": PERSON}}}
    answer = server.post("/v1/messages", body)
    assert answer.status_code == 200, answer.text
    validator(PERSON).validate(json.loads(beginning + answer.json()["content"][0]["text"]))
    body["messages"][-1]["content"] = "Well, "
    answer = server.post("/v1/messages", body)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "traffic"}}])
def test_calls_that_are_demanded_come_and_match(server, choice):
    check = validator(TOOLS[0]["function"]["parameters"])
    for message, reason in ask_many([
            lambda seed=seed: ask(server, seed=seed, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
            for seed in range(6)
    ]):
        assert reason == "tool_calls"
        call, = message["tool_calls"]
        assert call["function"]["name"] in (["traffic"] if choice != "required" else ["weather", "traffic"])
        check.validate(json.loads(call["function"]["arguments"]))


def test_anthropic_tool_choice(anthropic_client):
    tools = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"], "strict": True} for tool in TOOLS]
    for choice in ({"type": "any", "disable_parallel_tool_use": True},
                   {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}):
        with anthropic_client.messages.stream(model="claude-x", max_tokens=400, messages=CONTENT, tools=tools,
                                              tool_choice=choice, extra_body={"temperature": 1}) as stream:
            message = stream.get_final_message()
        block, = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use"
        validator(tools[0]["input_schema"]).validate(block.input)


@pytest.mark.parametrize("schema, keyword", [
    ({"contains": {}}, "contains"),
    ({"properties": {"a": {"if": {}, "then": False}}}, "if"),
    ({"pattern": "(?=a)"}, "pattern"),
    ({"$ref": "#"}, "$ref"),
    ({"type": "array", "minItems": 2**64 - 1}, "minItems"),
    ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, "oneOf"),
])
def test_what_cannot_be_enforced_is_refused_by_name(server, openai_client, schema, keyword):
    with pytest.raises(openai.BadRequestError, match=re.escape(keyword) + ": "):
        openai_client.chat.completions.create(model=GENERATOR_NAME, messages=CONTENT, response_format=json_schema(schema))
    answer = server.post("/v1/messages", {"model": "claude-x", "max_tokens": 5, "messages": CONTENT,
                                          "output_config": {"format": {"type": "json_schema", "schema": schema}}})
    assert answer.status_code == 400 and keyword + ": " in answer.json()["error"]["message"]


def test_a_strict_tool_that_cannot_be_enforced_is_refused(server):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "dependentSchemas": {}}}}
    body = {"model": GENERATOR_NAME, "messages": CONTENT, "tools": [tool], "max_completion_tokens": 5}
    assert server.post("/v1/chat/completions", body).status_code == 200
    tool["function"]["strict"] = True
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400 and "f: dependentSchemas: " in answer.json()["error"]["message"]


def test_a_cut_answer_says_so(server):
    message, reason = ask(server, response_format=json_schema(PERSON), max_completion_tokens=4)
    assert reason == "length" and message["content"].startswith("{")


def test_a_named_tool_is_called_once_with_its_own_arguments_alone(server):
    """Whatever the model would go on with: an object that lists its properties gets no others."""
    tool = {"name": "get_weather", "input_schema": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "maxLength": 24}}}}
    for _ in range(8):
        answer = server.post("/v1/messages", {
            "model": "claude-x", "max_tokens": 200, "temperature": 1, "tools": [tool],
            "tool_choice": {"type": "tool", "name": "get_weather"},
            "messages": [{"role": "user", "content": "How warm is it in Oslo?"}]}).json()
        assert answer["stop_reason"] == "tool_use", answer
        calls = [block for block in answer["content"] if block["type"] == "tool_use"]
        assert len(calls) == 1 and list(calls[0]["input"]) == ["city"], answer
