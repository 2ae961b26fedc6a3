"""The default answer is the model's answer on every instruction set that this machine has, not on the best one alone."""
import pytest

from harness import GENERATOR, clean_environment, run

# 37 tokens with the template, and the answer: all of them fine rows. In the float reference the answer's first token leads
# by 0.08 nats, which is far more than the kernels of any instruction set differ by (1e-5).
CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"])
def test_capital_of_france(isa):
    done = run("run", "--model", GENERATOR, "--temperature", 0, "--max-tokens", 16, "-p", CAPITAL,
               env=clean_environment(PENSIEVE_ISA=isa))
    if done.returncode == 1 and isa in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == PARIS


def test_an_unknown_instruction_set_is_named():
    done = run("run", "--model", GENERATOR, "-p", CAPITAL, env=clean_environment(PENSIEVE_ISA="altivec"))
    assert done.returncode == 1 and "altivec" in done.stderr
