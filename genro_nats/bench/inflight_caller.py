"""The caller that scenario ``inflight`` measures: ``python -m genro_nats.bench.inflight_caller``."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from genro_nats.bench.functions import gated
from genro_nats.bench.peer import run_peer
from genro_nats.bench.processes import resident
from genro_nats.executor.nats import NatsExecutor

__all__: list[str] = []

_SAMPLE: Final = 0.005  # seconds between two looks at the memory
_ALL_SENT: Final = 30.0  # seconds


class _Peak:
    """The most memory this process held while it was watched, bytes."""

    def __enter__(self) -> Self:
        self.bytes = resident(os.getpid())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE):
            self.bytes = max(self.bytes, resident(os.getpid()))

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.bytes = max(self.bytes, resident(os.getpid()))


async def _serve(config: dict[str, Any], say: Callable[[str], None], stopped: asyncio.Event) -> None:
    gate, calls = Path(config["gate"]), config["calls"]
    async with NatsExecutor("inflight", **config["options"], max_pending=calls) as pool:
        function: Callable[..., Any] = pool(gated)
        _open(gate)
        for value in range(100):
            await function(str(gate), value)
        _shut(gate)
        gc.collect()
        before = resident(os.getpid())
        begin = time.perf_counter()
        with _Peak() as peak:
            waiting = [asyncio.ensure_future(function(str(gate), value)) for value in range(calls)]
            outstanding = await _all_out(pool, calls)
            _open(gate)
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        facts = {
            "calls": calls,
            "outstanding": outstanding,
            "lost": sum(answer != value for value, answer in enumerate(answers)),
            "before": before,
            "peak": peak.bytes,
            "seconds": time.perf_counter() - begin,
        }
        say(json.dumps(facts))


def _open(gate: Path) -> None:
    gate.touch()


def _shut(gate: Path) -> None:
    gate.unlink()


async def _all_out(pool: NatsExecutor, calls: int) -> int:
    """Wait until all calls are on their way; the most that were at one time."""
    most = 0
    deadline = time.monotonic() + _ALL_SENT
    while most < calls and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
        most = max(most, pool.metrics["pending"])
    await asyncio.sleep(0.2)  # what is queued for the socket gets there, and counts
    return most


if __name__ == "__main__":
    run_peer(_serve)
