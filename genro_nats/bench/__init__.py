"""The benchmark: what a call costs, beside bare nats-py and other pools on the same machine."""

from __future__ import annotations

from genro_nats.bench.arguments import add_arguments
from genro_nats.bench.run import run_bench

__all__ = ["add_arguments", "run_bench"]
