"""What a durable task costs: ``python benchmarks/tasks.py --help``. The same as ``genro-nats bench tasks``."""

from __future__ import annotations

import argparse

from genro_nats.bench.arguments import add_common_arguments
from genro_nats.bench.tasks import run_tasks

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser, "7")
    raise SystemExit(run_tasks(parser.parse_args()))
