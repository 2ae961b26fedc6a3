#!/usr/bin/env python3
"""Writes the goldens of the chat template engine with jinja2, set up as HF transformers does.

    python tools/chat_golden.py                        # tests/data/chat/jinja_golden.json
    python tools/chat_golden.py --templates DIR        # also tests/data/chat/model_templates_golden.json

The first file holds small templates written for this project and their output. The second holds, for the templates of
real models in DIR (not part of this repository), only length and FNV-1a hash of each output.
Needs: jinja2 >= 3.1.6.
"""
import argparse
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2025, 7, 4, 12, 34, 56)
NOW_S = 1751632496  # the same moment in UTC
DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "chat"


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


def render(source, context):
    """(text, None) or (None, message)."""
    try:
        return environment().from_string(source).render(**context), None
    except Exception as error:  # whatever Python raises, the engine must refuse too
        return None, f"{type(error).__name__}: {error}"


CONTEXT = {
    "s": "Hello, Wörld", "empty": "", "n": 7, "neg": -3, "f": 2.5, "t": True, "nil": None,
    "big": 18446744073709551615, "tiny": 1e-7, "huge": 1e22, "list": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "mixed": [1, "a", None, True, 2.0, {"k": [1]}], "d": {"b": 1, "a": {"x": "y"}, "items": 5},
    "rows": [{"role": "user", "n": 2, "v": {"w": 1}}, {"role": "tool", "n": 1}, {"role": "user", "n": 3, "v": {"w": 0}}],
    "text": "  line one\n\tline two\r\nline 'three' \"q\" \\ é \u200b 😀 \x7f end  ",
    "html": "<a href=\"x\">&'</a>", "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4}]}]}],
}

# One template per line or entry; every feature that templates of models use has its place here.
TEMPLATES = pathlib.Path(__file__).with_name("chat_golden_templates.txt")


def own_templates():
    return [part for part in TEMPLATES.read_text(encoding="utf-8").split("\n=====\n") if part]


def conversations():
    tools = [
        {"type": "function", "function": {
            "name": "get_weather", "description": "Weather <now> & \"later\" é.",
            "parameters": {"type": "object", "properties": {
                "city": {"type": "string", "description": "A city"},
                "days": {"type": "integer", "default": 3, "minimum": 0.5},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c", "description": "Unit"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "extra": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
            }, "required": ["city"]}}},
        {"type": "function", "function": {"name": "now", "description": "Clock", "parameters": {
            "type": "object", "properties": {}}}},
    ]
    call = {"id": "call00001", "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2, "deep": {"x": [1, 2.5, None]}}}}
    call2 = {"id": "call00002", "type": "function", "function": {"name": "now", "arguments": {}}}
    system = {"role": "system", "content": "Be brief."}
    hi, hello = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
    ask = {"role": "user", "content": "  Weather in Oslo?\n"}
    result = {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "{\"t\":7}"}
    result2 = {"role": "tool", "tool_call_id": "call00002", "content": "noon"}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    both = {"role": "assistant", "content": "Let me see.", "tool_calls": [call, call2]}
    think = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello!"}
    reason = {"role": "assistant", "content": "Hello!", "reasoning_content": "hm hm"}
    parts = {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]}
    chats = {
        "user": [hi], "plain": [hi, hello, ask], "system": [system, hi, hello, ask],
        "system_only": [system], "late_system": [hi, hello, {"role": "system", "content": "Now."}, ask],
        "think": [hi, think, ask], "reasoning": [hi, reason, ask], "reasoning_last": [hi, reason],
        "tool_call": [system, ask, calls, result], "tool_round": [system, ask, calls, result, hello, hi],
        "two_calls": [ask, both, result, result2], "two_users": [hi, ask], "assistant_last": [system, hi, hello],
        "parts": [parts], "unicode": [{"role": "user", "content": "é😀 <|im_end|> {{ x }} \\n"}],
        "no_think": [{"role": "system", "content": "Be brief. /no_think"}, hi], "null_content": [
            ask, {"role": "assistant", "content": None, "tool_calls": [call]}, result],
    }
    for name, messages in chats.items():
        for tool_name, given in (("no_tools", None), ("tools", tools)):
            for more_name, more in (
                    ("", {}), ("+thinking_off", {"enable_thinking": False}), ("+kwargs", {
                        "enable_thinking": True, "reasoning_effort": "high", "builtin_tools": ["browser", "python"],
                        "date_string": "1 Jan 2030", "tools_in_user_message": False})):
                for generate in (True, False):
                    context = {"bos_token": "<s>", "eos_token": "</s>", "documents": None, **more,
                               "messages": messages, "tools": given, "add_generation_prompt": generate}
                    yield f"{name}/{tool_name}{more_name}/{int(generate)}", context


def fnv1a(data):
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def write(name, content, indent=1):
    DATA.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    (DATA / name).write_text(text + "\n", encoding="utf-8")
    print(DATA / name, len(text))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--templates", type=pathlib.Path)
    options = parser.parse_args()
    cases = []
    for source in own_templates():
        text, error = render(source, CONTEXT)
        cases.append({"template": source, "output": text} if error is None else {"template": source, "error": error})
    write("jinja_golden.json", {"jinja2": jinja2.__version__, "now_s": NOW_S, "context": CONTEXT, "cases": cases})
    if options.templates is None:
        return
    contexts = dict(conversations())
    results = {}
    for path in sorted(options.templates.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        outputs = results[path.name] = {}
        for name, context in contexts.items():
            text, error = render(source, context)
            data = None if text is None else text.encode()
            outputs[name] = "error" if data is None else f"{len(data)}:{fnv1a(data)}"
    write("model_templates_golden.json", {"now_s": NOW_S, "contexts": contexts, "outputs": results}, indent=None)


if __name__ == "__main__":
    main()
