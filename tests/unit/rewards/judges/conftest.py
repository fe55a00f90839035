"""A real judge server to talk to."""

import pytest
from judge_process import Server


@pytest.fixture(scope="module")
def shared_server():
    """One server for a file of tests."""
    pytest.importorskip("openai", reason="the openai judge needs `pip install openai`")
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server):
    """The file's server, with no fault planted and nothing seen."""
    shared_server.plant()
    return shared_server
