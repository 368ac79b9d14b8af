"""What a durable task costs: ``python benchmarks/tasks.py --help``. The same as ``genro-nats bench tasks``."""

from __future__ import annotations

import argparse

from genro_nats.bench.tasks import add_task_arguments, run_tasks

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_task_arguments(parser)
    raise SystemExit(run_tasks(parser.parse_args()))
