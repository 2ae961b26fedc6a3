import importlib.util

import pytest

from harness import BINARY, EMBEDDER, GENERATOR, Server


# Other vendors' clients are an extra: `make test-clients` installs them.
collect_ignore = [] if importlib.util.find_spec("instructor") else ["clients"]


def pytest_sessionstart(session):
    for path in (BINARY, GENERATOR, EMBEDDER / "model.safetensors"):
        if not path.exists():
            pytest.exit(f"{path} is missing: build the binary, then run `pensieve pull`", returncode=2)


@pytest.fixture(scope="session")
def server():
    """The default server: both default models."""
    with Server() as running:
        yield running
        assert running.alive(), running.log()[-4000:]


@pytest.fixture
def start_server():
    """Starts servers with other flags; ends them with the test."""
    servers = []

    def start(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for running in servers:
        running.__exit__()


@pytest.fixture
def anthropic_client(server):
    import anthropic
    with anthropic.Anthropic(base_url=server.url, api_key="local", max_retries=0, timeout=600) as client:
        yield client


@pytest.fixture
def openai_client(server):
    import openai
    with openai.OpenAI(base_url=server.url + "/v1", api_key="local", max_retries=0, timeout=600) as client:
        yield client
