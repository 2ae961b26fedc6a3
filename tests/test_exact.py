"""The default answer is the model's answer on every instruction set that this machine has, not on the best one alone."""
import re

import pytest

from harness import (ANSWER, ANSWER_MARGIN, GENERATOR, GENERATOR_NAME, OPENING, QUESTION, REFERENCE_QUESTION, ROOT, TURNS,
                     TURNS_ANSWER, clean_environment, run)

ISAS = ["scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"]
# 37 tokens with the template, and the answer: all of them precise rows. In the float reference the answer's first token
# leads by 0.08 nats only, which is still far more than the kernels of any instruction set differ by (1e-5).
PARIS = "The capital of France is Paris."


def answer_of(question, isa):
    done = run("run", "--model", GENERATOR, "--temperature", 0, "--max-tokens", 16, "-p", question,
               env=clean_environment(PENSIEVE_ISA=isa))
    if done.returncode == 1 and isa in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("isa", ISAS)
def test_capital_of_france(isa):
    assert answer_of(REFERENCE_QUESTION, isa) == PARIS


@pytest.mark.parametrize("isa", ISAS)
def test_the_first_question_of_the_readme(isa):
    asked = re.search(r'"content":"([^"]*)"', (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert asked == QUESTION and answer_of(asked, isa) == ANSWER


def lead(token_logprobs):
    """By how many nats the drawn token leads the second best."""
    best, second = sorted((entry["logprob"] for entry in token_logprobs), reverse=True)[:2]
    return best - second


def test_answers_that_tests_quote_have_a_margin(start_server):
    """In the float reference, token by token."""
    exact = start_server("--activations", "f32")
    fields = {"model": GENERATOR_NAME, "temperature": 0, "max_tokens": 16}
    for messages, answer in [([{"role": "user", "content": QUESTION}], ANSWER), (TURNS, TURNS_ANSWER)]:
        got = exact.post("/v1/chat/completions", {**fields, "messages": messages, "logprobs": True, "top_logprobs": 2})
        choice = got.json()["choices"][0]
        assert choice["message"]["content"] == answer
        leads = [lead(token["top_logprobs"]) for token in choice["logprobs"]["content"]]
        assert min(leads) >= ANSWER_MARGIN, (answer, leads)
    raw = exact.post("/v1/completions", {**fields, "prompt": OPENING, "max_tokens": 1, "logprobs": 2}).json()["choices"][0]
    best, second = sorted(raw["logprobs"]["top_logprobs"][0].values(), reverse=True)[:2]
    assert raw["text"] == " Tokyo" and best - second >= ANSWER_MARGIN


def test_an_unknown_instruction_set_is_named():
    done = run("run", "--model", GENERATOR, "-p", REFERENCE_QUESTION, env=clean_environment(PENSIEVE_ISA="altivec"))
    assert done.returncode == 1 and "altivec" in done.stderr
