"""``--nats=docker`` where it can't be had: an error that names the way out."""

from __future__ import annotations

import sys

import pytest

from genro_nats.errors import ConfigurationError
from genro_nats.testing.docker import docker_server


def test_without_testcontainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "testcontainers.community.nats", None)
    with (
        pytest.raises(ConfigurationError, match=r'pip install "genro-nats\[testcontainers\]"'),
        docker_server(),
    ):
        pass


def test_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match=r"--nats=docker: .*can't run nats:"), docker_server():
        pass
