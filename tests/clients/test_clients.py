"""Agents' and vendors' clients, each with a plain, a streamed, a structured and a tool trial.

`make test-clients` installs them and runs this. The model that answers is small: a structured trial asks that the
answer is of its type, a tool trial that a call must come comes back as one with arguments of its schema.
"""
import asyncio
import os
from typing import Annotated

import anthropic
import instructor
import openai
import pytest
from pydantic import BaseModel, Field

from harness import ANSWER, GENERATOR_NAME, QUESTION

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")


# Short fields: a small model may write on until its tokens end, and then nothing could be parsed.
Short = Annotated[str, Field(max_length=24)]


class City(BaseModel):
    model_config = {"extra": "forbid"}
    name: Short
    country: Short


class AnyObject(BaseModel):
    """What a mode that promises any JSON object can be held to."""
    name: str | None = None


WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 24}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False
}


@pytest.fixture
def openai_url(server):
    return server.url + "/v1"


# ---- anthropic ----


def test_anthropic(anthropic_client):
    fields = {"model": "claude-sonnet-4-5", "max_tokens": 128, "messages": [{"role": "user", "content": QUESTION}]}
    greedy = {"extra_body": {"temperature": 0}}
    assert anthropic_client.messages.create(**fields, **greedy).content[0].text == ANSWER
    with anthropic_client.messages.stream(**fields, **greedy) as stream:
        assert "".join(stream.text_stream) == ANSWER
    answer = anthropic_client.messages.parse(**fields, output_format=City)
    assert isinstance(answer.parsed_output, City)
    tool = {"name": "get_weather", "description": "Weather of a city", "input_schema": WEATHER}
    call = anthropic_client.messages.create(**fields, tools=[tool], tool_choice={"type": "tool", "name": "get_weather"})
    assert call.stop_reason == "tool_use"
    block = next(block for block in call.content if block.type == "tool_use")
    assert block.name == "get_weather" and isinstance(block.input["days"], int)


# ---- openai ----


def test_openai_chat(openai_client):
    fields = {"model": GENERATOR_NAME, "messages": [{"role": "user", "content": QUESTION}]}
    assert openai_client.chat.completions.create(**fields, temperature=0).choices[0].message.content == ANSWER
    chunks = openai_client.chat.completions.create(**fields, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    parsed = openai_client.chat.completions.parse(**fields, response_format=City, max_completion_tokens=200)
    assert isinstance(parsed.choices[0].message.parsed, City)
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}}
    call = openai_client.chat.completions.create(**fields, tools=[tool], tool_choice="required")
    assert call.choices[0].finish_reason == "tool_calls"
    assert call.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_openai_responses(openai_client):
    fields = {"model": GENERATOR_NAME, "input": QUESTION, "max_output_tokens": 200}
    assert openai_client.responses.create(**fields, temperature=0).output_text == ANSWER
    events = openai_client.responses.create(**fields, temperature=0, stream=True)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert isinstance(openai_client.responses.parse(**fields, text_format=City).output_parsed, City)
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    call = openai_client.responses.create(**fields, tools=[tool], tool_choice={"type": "function", "name": "get_weather"})
    assert call.output[-1].type == "function_call" and call.output[-1].name == "get_weather"


# ---- ollama ----


def test_ollama(server):
    import ollama
    client = ollama.Client(host=server.url)
    messages = [{"role": "user", "content": QUESTION}]
    greedy = {"temperature": 0, "num_predict": 128}
    assert client.chat(GENERATOR_NAME, messages, options=greedy).message.content == ANSWER
    assert "".join(part.message.content for part in client.chat(GENERATOR_NAME, messages, options=greedy, stream=True)) == ANSWER
    answer = client.chat(GENERATOR_NAME, messages, options={"num_predict": 200}, format=City.model_json_schema())
    assert City.model_validate_json(answer.message.content)
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    assert client.chat(GENERATOR_NAME, messages, options=greedy, tools=[tool]).done


# ---- instructor ----


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA])
def test_instructor(openai_url, mode):
    client = instructor.from_openai(openai.OpenAI(base_url=openai_url, api_key="local"), mode=mode)
    fields = {"model": GENERATOR_NAME, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 300}
    model = AnyObject if mode == instructor.Mode.JSON else City
    assert isinstance(client.create(**fields, response_model=model, max_retries=1), model)
    if model is AnyObject:
        return
    for partial in client.create_partial(**fields, response_model=City, max_retries=1):
        last = partial
    assert last.name is not None and last.country is not None


# ---- pydantic-ai ----


@pytest.fixture(params=["chat", "anthropic"])
def pydantic_model(request, server, openai_url):
    if request.param == "chat":
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider
        return OpenAIChatModel(GENERATOR_NAME, provider=OpenAIProvider(base_url=openai_url, api_key="local"))
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    client = anthropic.AsyncAnthropic(base_url=server.url, api_key="local")
    return AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(anthropic_client=client))


def test_pydantic_ai(pydantic_model):
    from pydantic_ai import Agent

    settings = {"temperature": 0, "max_tokens": 200}
    assert Agent(pydantic_model).run_sync(QUESTION, model_settings=settings).output == ANSWER

    async def stream():
        async with Agent(pydantic_model).run_stream(QUESTION, model_settings=settings) as answer:
            return await answer.get_output()

    assert asyncio.run(stream()) == ANSWER
    city = Agent(pydantic_model, output_type=City).run_sync(QUESTION, model_settings=settings).output
    assert isinstance(city, City)
    agent = Agent(pydantic_model)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return f"{city}: 7 degrees"

    assert isinstance(agent.run_sync(QUESTION, model_settings=settings).output, str)


# ---- openai-agents: its default mode is /v1/responses ----


def test_openai_agents(openai_url):
    from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled

    def run(agent, text):
        return asyncio.run(Runner.run(agent, text)).final_output

    @function_tool
    def get_weather(city: Short) -> str:
        """Weather of a city."""
        return f"{city}: 7 degrees"

    set_tracing_disabled(True)
    set_default_openai_client(openai.AsyncOpenAI(base_url=openai_url, api_key="local"), use_for_tracing=False)
    settings = ModelSettings(temperature=0, max_tokens=200)
    plain = Agent(name="plain", instructions="", model=GENERATOR_NAME, model_settings=settings)
    assert "Tokyo" in run(plain, QUESTION)

    async def stream():
        answer = Runner.run_streamed(plain, QUESTION)
        async for _ in answer.stream_events():
            pass
        return answer.final_output

    assert "Tokyo" in asyncio.run(stream())
    typed = Agent(name="typed", model=GENERATOR_NAME, model_settings=settings, output_type=City)
    assert isinstance(run(typed, QUESTION), City)
    must = ModelSettings(temperature=0, max_tokens=200, tool_choice="required")
    tools = Agent(name="tools", model=GENERATOR_NAME, model_settings=must, tools=[get_weather],
                  tool_use_behavior="stop_on_first_tool")
    assert "7 degrees" in run(tools, "How warm is it in Oslo?")


# ---- langchain ----


@pytest.fixture(params=["openai", "anthropic"])
def langchain_model(request, server, openai_url):
    if request.param == "openai":
        from langchain_openai import ChatOpenAI
        return ChatOpenAI(model=GENERATOR_NAME, base_url=openai_url, api_key="local", temperature=0, max_tokens=200)
    from langchain_anthropic import ChatAnthropic
    return ChatAnthropic(model="claude-sonnet-4-5", base_url=server.url, api_key="local", temperature=0, max_tokens=200)


def test_langchain(langchain_model):
    from langchain_core.tools import tool

    @tool
    def get_weather(city: Short) -> str:
        """Weather of a city."""
        return f"{city}: 7 degrees"

    assert langchain_model.invoke(QUESTION).text == ANSWER
    assert "".join(chunk.text for chunk in langchain_model.stream(QUESTION)) == ANSWER
    assert isinstance(langchain_model.with_structured_output(City).invoke(QUESTION), City)
    call = langchain_model.bind_tools([get_weather], tool_choice="get_weather").invoke("How warm is it in Oslo?")
    assert call.tool_calls[0]["name"] == "get_weather" and isinstance(call.tool_calls[0]["args"]["city"], str)


# ---- litellm ----


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama_chat"])
def test_litellm(server, openai_url, provider):
    import litellm

    model = {"openai": GENERATOR_NAME, "anthropic": "claude-sonnet-4-5", "ollama_chat": GENERATOR_NAME}[provider]
    fields = {
        "model": f"{provider}/{model}", "messages": [{"role": "user", "content": QUESTION}],
        "api_base": openai_url if provider == "openai" else server.url, "api_key": "local", "max_tokens": 200
    }
    assert litellm.completion(**fields, temperature=0).choices[0].message.content == ANSWER
    chunks = litellm.completion(**fields, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    typed = litellm.completion(**fields, response_format=City)
    assert City.model_validate_json(typed.choices[0].message.content)
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
    must = {} if provider == "ollama_chat" else {"tool_choice": "required"}
    call = litellm.completion(**fields, tools=[tool], **must)
    if must:
        assert call.choices[0].message.tool_calls[0].function.name == "get_weather"
