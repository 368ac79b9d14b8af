"""Which servers only this machine reaches: over others a worker warns of unsigned calls."""

from __future__ import annotations

import pytest

from genro_nats.config import PoolOptions
from genro_nats.transport.address import Address


@pytest.mark.parametrize(
    ("url", "secured"),
    [
        ("embedded", True),
        ("nats://127.0.0.1:4222", True),
        ("nats://user:word@127.0.0.2", True),
        ("nats://[::1]:4222", True),
        ("nats://localhost", True),
        ("nats://localhost.example.com", False),
        ("nats://127.example.com", False),
        ("nats://10.0.0.1", False),
        ("nats://127.0.0.1,nats://10.0.0.1", False),
    ],
)
def test_loopback_is_told_from_names_that_look_like_it(url: str, secured: bool) -> None:
    options = PoolOptions.build("nats", {"url": url}, name="t")
    assert Address(options).secured is secured
