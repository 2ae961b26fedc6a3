"""The command lines of docs/api.md do what they show."""
import re
import shlex

import pytest
import requests

from harness import ROOT

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.S)
CURLS = [line for block in BLOCKS for line in re.split(r"\n(?=curl )", block.strip())]


def parse(line):
    """(url, headers, body) of a curl line; only the options that the document uses."""
    words = iter(shlex.split(line))
    assert next(words) == "curl"
    url, headers, body = None, {}, None
    for word in words:
        if word == "-H":
            name, value = next(words).split(": ", 1)
            headers[name] = value
        elif word == "-d":
            body = next(words)
        elif word != "-N":
            assert url is None and word.startswith("http://"), word
            url = word
    return url, headers, body


def test_there_are_lines():
    assert len(CURLS) >= 12


@pytest.mark.parametrize("line", CURLS, ids=lambda line: line.split()[1][-30:])
def test_line(server, line):
    url, headers, body = parse(line)
    url = url.replace("http://127.0.0.1:8080", server.url)
    answer = requests.request("GET" if body is None else "POST", url, headers=headers, data=body, timeout=120)
    assert answer.status_code == 200, answer.text
