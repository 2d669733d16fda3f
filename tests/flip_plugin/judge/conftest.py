"""Short pauses, and an address without a server."""

import socket

import pytest


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("flip_plugin.judge.retries.LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr("flip_plugin.judge.replicas.LONGEST_REST_S", 0.1)


@pytest.fixture
def closed_port():
    """A port that nobody listens on, and that nobody else gets."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{keeper.getsockname()[1]}/v1"
