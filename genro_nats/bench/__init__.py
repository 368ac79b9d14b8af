"""The benchmark: what calls, tasks, payloads and fleets cost, beside others on the same machine."""

from __future__ import annotations

from genro_nats.bench.arguments import SCENARIOS, add_arguments
from genro_nats.bench.fleet_run import run_fleet
from genro_nats.bench.life_run import run_life
from genro_nats.bench.payloads import run_payloads
from genro_nats.bench.run import run_bench
from genro_nats.bench.tasks import run_tasks

__all__ = ["SCENARIOS", "add_arguments", "run_bench", "run_fleet", "run_life", "run_payloads", "run_tasks"]
