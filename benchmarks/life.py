"""What a worker takes when idle, when it is ready, what recycling costs: ``python benchmarks/life.py --help``."""

from __future__ import annotations

import argparse

from genro_nats.bench.arguments import add_common_arguments
from genro_nats.bench.life_run import run_life

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser, "5")
    raise SystemExit(run_life(parser.parse_args()))
