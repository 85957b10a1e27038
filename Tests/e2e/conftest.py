"""Fixtures: real servers. Shared ones live for the whole run and are checked for leftovers at its end."""

import os
import pathlib
import signal
import sys

import openai
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from server import BINARY, DEFAULT_MODEL, Server  # noqa: E402

PARSERS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"]


def pytest_sessionstart(session):
    if not os.access(BINARY, os.X_OK):
        pytest.exit(f"{BINARY} does not exist; build first (or set VLLM_ENGINE_BIN)", returncode=3)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # programs inherit that it is ignored if the tests run under nohup


@pytest.fixture
def start_server():
    """Starts servers of the test's own: `start_server("--max-model-len", "512")` waits until it is ready."""
    servers = []

    def start(*args, wait=True, **kwargs):
        server = Server(*args, **kwargs)
        servers.append(server)
        return server.wait_ready() if wait else server

    yield start
    errors = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture
def start_mock(start_server):
    """Our frontend before the scripted engine: a token every 20 ms."""

    def start(*args, **kwargs):
        return start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--mock-itl-ms", "20",
                            *args, **kwargs)

    return start


def shared(*args):
    server = Server(*args)
    try:
        yield server.wait_ready()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server():
    """The embedded model with default options."""
    yield from shared()


@pytest.fixture(scope="session")
def tool_server():
    """The embedded model with the tool call and reasoning parsers it was trained for."""
    yield from shared(*PARSERS)


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def tool_client(tool_server):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{tool_server.port}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def model(client):
    """The served model name."""
    return client.models.list().data[0].id
