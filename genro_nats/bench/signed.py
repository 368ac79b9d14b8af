"""What signing costs: calls in flight through a pool with a key and one without, in turns."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean
from time import perf_counter
from typing import Final

from genro_nats.bench.functions import echo
from genro_nats.bench.ground import pool_options
from genro_nats.bench.peer import Peer, has_uvloop
from genro_nats.bench.plan import LANES
from genro_nats.codec.signing import new_key
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer

__all__ = ["SignedFigures", "time_signed"]

_SUBJECT: Final = "bench.signed"
_WARM: Final = 2_000  # calls


@dataclass(slots=True)
class SignedFigures:
    """Calls per second, one figure per turn; what stands at the same place was measured one after the other."""

    plain: list[float] = field(default_factory=list)
    signed: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Of the rates over all turns together: single ones differ by a fifth, by who meets whom on which core."""
        return harmonic_mean(self.signed) / harmonic_mean(self.plain)


async def time_signed(server: EmbeddedServer, turns: int, calls: int, starts: int) -> SignedFigures:
    """``turns`` of ``calls`` calls each, by every one of some ``starts`` of both pools and workers.

    Every other turn begins with the signed pool, since who is first is faster. A process is faster
    or slower by some percent for its whole life, by where its memory lies, so one start says little.
    """
    figures = SignedFigures()
    for _ in range(starts):
        await _time_start(server, turns, calls, figures)
    return figures


async def _time_start(server: EmbeddedServer, turns: int, calls: int, figures: SignedFigures) -> None:
    async with AsyncExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys"
        keys.write_text(new_key("bench") + "\n")
        sides = []
        for name, given in (("plain", {}), ("signed", {"key_file": str(keys)})):
            options = {**pool_options(server, f"{_SUBJECT}.{name}"), **given}
            stack.enter_context(Peer("genro_nats.bench.worker", {"options": options, "uvloop": has_uvloop()}))
            sides.append(await stack.enter_async_context(NatsExecutor(name, **options)))
        for pool in sides:
            await _rate(pool, _WARM)
        for turn in range(turns):
            pair = [(sides[0], figures.plain), (sides[1], figures.signed)]
            for pool, rates in pair if turn % 2 else reversed(pair):
                gc.collect()
                rates.append(await _rate(pool, calls))


async def _rate(pool: NatsExecutor, calls: int) -> float:
    async def lane() -> None:
        for _ in range(calls // LANES):
            await pool.submit(echo, b"x")

    begin = perf_counter()
    await asyncio.gather(*(lane() for _ in range(LANES)))
    return calls // LANES * LANES / (perf_counter() - begin)
