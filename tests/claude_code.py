"""A request as Claude Code builds it: written for these tests after the anatomy of real ones, without their text."""
import json


def schema(properties, required):
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties,
        "required": required, "additionalProperties": False
    }


def tool(name, sentences, properties, required):
    text = " ".join(f"{name} does step {i} with care, says what it did and never asks twice." for i in range(sentences))
    return {"name": name, "description": text, "input_schema": schema(properties, required)}


def tools(sentences):
    path = {"file_path": {"type": "string", "description": "Absolute path of the file"}}
    return [
        tool("Bash", sentences, {"command": {"type": "string"}, "timeout": {"type": "number", "exclusiveMinimum": 0}},
             ["command"]),
        tool("Read", sentences, {**path, "limit": {"type": "integer", "minimum": 1}}, ["file_path"]),
        tool(
            "Edit", sentences, {
                **path, "old_string": {"type": "string"}, "new_string": {"type": "string"},
                "mode": {"anyOf": [{"const": "one"}, {"const": "all"}]}
            }, ["file_path", "old_string"]),
        tool("Write", sentences, {**path, "content": {"type": "string"}}, ["file_path", "content"]),
        tool(
            "Agent", sentences, {
                "prompt": {"type": "string"},
                "options": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {}}
            }, ["prompt"]), {**tool("Placeholder", 1, {}, []), "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ]


HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "mid-conversation-tool-changes-2026-07-01,effort-2025-11-24,no-such-beta-2099-01-01",
    "anthropic-dangerous-direct-browser-access": "true", "x-app": "cli",
    "user-agent": "claude-cli/2.1.330 (external, sdk-cli)", "x-stainless-lang": "js", "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600", "authorization": "Bearer local",
}


def request(prompt, paragraphs, sentences, version="abc"):
    """`paragraphs` of system prompt and `sentences` per tool scale its size."""
    rules = "\n".join(f"# Rule {i}\nKeep answers short, read files before changing them, and run the tests afterwards."
                      for i in range(paragraphs))
    return {
        "model": "claude-sonnet-4-5-20250929", "messages": [{
            "role": "user",
            "content": [{"type": "text", "text": "<system-reminder>\nThe date is known.\n</system-reminder>"},
                        {"type": "text", "text": prompt}]
        }, {
            "role": "system", "content": [{
                "type": "text", "text": "Working directory: /project\nPlatform: linux",
                "cache_control": {"type": "ephemeral"}
            }]
        }, ], "system": [{
            "type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.330.{version}; cc_entrypoint=sdk-cli;"
        }, {"type": "text", "text": "You are a coding assistant in a terminal."},
                         {"type": "text", "text": rules, "cache_control": {"type": "ephemeral",
                                                                           "ttl": "1h"}}, ], "tools": tools(sentences),
        "metadata": {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": "s"})},
        "max_tokens": 32000, "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"}, "safeguards": [{"type": "dangerous_tool_use"}], "stream": True,
    }
