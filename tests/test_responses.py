"""POST /v1/responses through the official SDK."""
import openai
import pytest

from harness import ANSWER, GENERATOR_NAME, QUESTION



def create(client, given=QUESTION, **fields):
    return client.responses.create(**{
        "model": GENERATOR_NAME,
        "input": given,
        "temperature": 0,
        "max_output_tokens": 32,
        **fields
    })


def test_text(openai_client):
    answer = create(openai_client)
    assert answer.output_text == ANSWER
    assert answer.status == "completed" and answer.id.startswith("resp_")
    assert answer.output[0].type == "message" and answer.output[0].role == "assistant"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    cut = create(openai_client, max_output_tokens=2)
    assert cut.status == "incomplete" and cut.incomplete_details.reason == "max_output_tokens"


def test_stream(openai_client):
    events = list(create(openai_client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    assert types[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"
    ]
    assert types[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"
    ]
    assert set(types[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert events[-1].response.output_text == ANSWER
    question = QUESTION
    with openai_client.responses.stream(model=GENERATOR_NAME, input=question, temperature=0, max_output_tokens=32) as stream:
        assert stream.get_final_response().status == "completed"


def test_logprobs(openai_client):
    answer = create(openai_client, include=["message.output_text.logprobs"], top_logprobs=2)
    entries = answer.output[0].content[0].logprobs
    assert "".join(entry.token for entry in entries) == ANSWER
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_conversations_go_on(openai_client):
    first = create(openai_client, "My name is Zebedee.", instructions="Be brief.")
    second = create(openai_client, "What is my name?", previous_response_id=first.id)
    whole = create(openai_client, [{"role": "user", "content": "My name is Zebedee."}] + [
        item.model_dump(exclude_none=True) for item in first.output
    ] + [{"role": "user", "content": "What is my name?"}])
    # Instructions are not carried over; the rest is the same prompt.
    assert second.output_text == whole.output_text
    assert second.usage.input_tokens == whole.usage.input_tokens
    assert second.previous_response_id == first.id


def test_kept_responses(openai_client, server):
    kept = create(openai_client, [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hello"}])
    assert openai_client.responses.retrieve(kept.id).output_text == kept.output_text
    items = openai_client.responses.input_items.list(kept.id).data
    assert [item.content[0].text for item in items] == ["Hello", "Hi"]
    page = server.get(f"/v1/responses/{kept.id}/input_items?order=asc&limit=1", headers={"authorization": "Bearer local"}).json()
    assert page["data"][0]["content"][0]["text"] == "Hi" and page["has_more"]
    # Another key sees nothing.
    assert server.get(f"/v1/responses/{kept.id}", headers={"authorization": "Bearer other"}).status_code == 404
    with pytest.raises(openai.BadRequestError):
        openai_client.responses.cancel(kept.id)
    openai_client.responses.delete(kept.id)
    for call in (lambda: openai_client.responses.retrieve(kept.id), lambda: openai_client.responses.delete(kept.id),
                 lambda: create(openai_client, previous_response_id=kept.id)):
        with pytest.raises(openai.NotFoundError):
            call()
    forgotten = create(openai_client, store=False)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(forgotten.id)


def test_tools_are_shown_and_counted(openai_client):
    tools = [{"type": "web_search"}, {
        "type": "function",
        "name": "look",
        "description": "Looks something up",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
        "strict": True
    }]
    items = [{"role": "user", "content": "Look up Oslo."},
             {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"what": "Oslo"}'},
             {"type": "function_call_output", "call_id": "call_1", "output": "a city"}]
    answer = create(openai_client, items, tools=tools)
    assert answer.status in ("completed", "incomplete")
    counted = openai_client.responses.input_tokens.count(model=GENERATOR_NAME, input=items, tools=tools)
    assert counted.input_tokens == answer.usage.input_tokens
    bare = openai_client.responses.input_tokens.count(model=GENERATOR_NAME, input=items)
    assert bare.input_tokens < counted.input_tokens


@pytest.mark.parametrize("fields", [{"given": []}, {"background": True}, {"tool_choice": "required"},
                                    {"text": {"format": {"type": "yaml"}}}, {"given": [{"role": "king", "content": "x"}]},
                                    {"given": "word " * 20000}], ids=lambda value: str(value)[:40])
def test_bad_requests(openai_client, fields):
    with pytest.raises(openai.BadRequestError):
        create(openai_client, **fields)
