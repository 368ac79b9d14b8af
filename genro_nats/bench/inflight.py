"""Scenario ``inflight``: what thousands of calls in flight over NATS add to one caller's memory."""

from __future__ import annotations

import json
from dataclasses import dataclass

from genro_nats.bench.ground import bench_server, pool_options, worker_peer
from genro_nats.bench.peer import Peer
from genro_nats.bench.plan import Plan
from genro_nats.bench.progress import Progress

__all__ = ["InflightFigures", "measure_inflight"]


@dataclass(frozen=True, slots=True)
class InflightFigures:
    """Memory in bytes; ``outstanding``: the most calls seen unanswered at one time."""

    calls: int
    outstanding: int
    lost: int
    before: int
    peak: int
    seconds: float

    @property
    def added(self) -> int:
        """Bytes that the calls added to the caller."""
        return self.peak - self.before


def measure_inflight(plan: Plan, progress: Progress) -> InflightFigures:
    """Send all calls before the first may be answered, from a caller of its own, and wait for all."""
    progress(f"inflight: {plan.outstanding:,} calls")
    with bench_server() as server, worker_peer(server, "bench.inflight"):
        options = pool_options(server, "bench.inflight")
        config = {"options": options, "calls": plan.outstanding, "gate": str(server.directory / "gate")}
        # A process of its own: memory that an earlier scenario left free would hide what calls take.
        with Peer("genro_nats.bench.inflight_caller", config, timeout=120) as caller:
            return InflightFigures(**json.loads(caller.said))
