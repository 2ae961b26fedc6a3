"""`pensieve render` against jinja2 as transformers configures it: byte for byte."""
import datetime
import json
import sys

import pytest

from harness import GENERATOR, ROOT, SHARED, run, run_json

sys.path.insert(0, str(ROOT / "tools"))
import chat_golden  # noqa: E402

TEMPLATES = sorted((SHARED / "chat_templates").glob("*.jinja"))


def render_now(source, context):
    chat_golden.NOW = datetime.datetime.now()
    return chat_golden.render(source, context)


def compare(template, names, tmp_path):
    """Renders the conversations with the command and with jinja2; how many could be compared."""
    special = run_json("inspect", "--json", GENERATOR)["special_tokens"]
    source = template.read_text(encoding="utf-8")
    compared = 0
    for name, context in chat_golden.conversations():
        if name not in names:
            continue
        context = {**context, **{f"{kind}_token": token["text"] for kind, token in special.items() if kind != "stop"}}
        want, error = render_now(source, context)
        messages, tools = tmp_path / "messages.json", tmp_path / "tools.json"
        messages.write_text(json.dumps(context["messages"], ensure_ascii=False), encoding="utf-8")
        extra = {
            key: value
            for key, value in context.items()
            if key not in ("messages", "tools", "add_generation_prompt", "documents") and not key.endswith("_token")
        }
        arguments = [
            "render", "--model", GENERATOR, "--chat-template", template, "--messages", messages, "--context-json",
            json.dumps(extra)
        ]
        if context["tools"] is not None:
            tools.write_text(json.dumps(context["tools"], ensure_ascii=False), encoding="utf-8")
            arguments += ["--tools", tools]
        if not context["add_generation_prompt"]:
            arguments.append("--no-generation-prompt")
        done = run(*arguments)
        if error is not None:
            continue  # a template that refuses a conversation gets it in another form from the command
        assert done.returncode == 0, (name, done.stderr)
        # Some templates show the date: midnight may have passed meanwhile.
        assert done.stdout in (want, render_now(source, context)[0]), name
        compared += 1
    return compared


NAMES = {
    f"{chat}/{tools}/{generate}"
    for generate in (0, 1)
    for chat, tools in (("user", "no_tools"), ("plain", "no_tools"), ("system", "no_tools"), ("reasoning", "no_tools"),
                        ("unicode", "no_tools"), ("plain", "tools"), ("tool_call", "tools"), ("tool_round", "tools"))
}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_templates_of_real_models(template, tmp_path):
    assert compare(template, NAMES, tmp_path) >= 4


def test_a_template_of_our_own(tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(
        "{%- for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}"
        "{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
        "{% endif %}\n{% endfor %}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        encoding="utf-8")
    assert compare(template, NAMES, tmp_path) >= 4


def test_the_models_own_template(tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(run_json("inspect", "--json", GENERATOR)["chat_template"], encoding="utf-8")
    assert compare(own, {name for name in NAMES if "no_tools" in name}, tmp_path) >= 6
