"""The benchmark: what calls and tasks cost, beside bare nats-py and other pools on the same machine."""

from __future__ import annotations

from genro_nats.bench.arguments import SCENARIOS, add_arguments
from genro_nats.bench.run import run_bench
from genro_nats.bench.tasks import run_tasks

__all__ = ["SCENARIOS", "add_arguments", "run_bench", "run_tasks"]
