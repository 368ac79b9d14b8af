"""Conformance: large values and buffers."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, SuiteBase

__all__ = ["PayloadTests"]

LARGE = 5_000_000  # bytes


class PayloadTests(SuiteBase):
    """Megabytes go both ways; what arrives is writable and private to who got it."""

    async def test_large_bytes(self, pool: BaseExecutor) -> None:
        data = bytes(range(256)) * (LARGE // 256)
        result = await pool.submit(samples.echo, data)
        assert type(result) is bytes
        assert hashlib.sha256(result).digest() == hashlib.sha256(data).digest()
        nested = await pool.submit(samples.echo, {"deep": [data]})
        assert nested["deep"][0] == data

    async def test_a_bytearray_is_writable_and_private(self, pool: BaseExecutor) -> None:
        data = bytearray(LARGE)
        result = await pool.submit(samples.mark_first, data)
        assert type(result) is bytearray
        assert (result[0], len(result)) == (7, LARGE)
        result[1] = 8
        if Can.COPY not in self.lacks:
            assert data == bytes(LARGE)

    async def test_an_array_is_writable_and_private(self, pool: BaseExecutor) -> None:
        numpy: Any = pytest.importorskip("numpy")
        data = numpy.zeros(LARGE // 8)
        result = await pool.submit(samples.mark_first, data)
        assert (result[0], result.shape) == (7.0, data.shape)
        assert result.flags.writeable
        result[1] = 8
        if Can.COPY not in self.lacks:
            assert not data.any()

    async def test_large_items_of_a_stream(self, pool: BaseExecutor) -> None:
        found = [(block[0], len(block)) async for block in pool.stream(samples.blocks, 5)]
        assert found == [(n, 1_000_000) for n in range(5)]
