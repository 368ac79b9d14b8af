"""What a worker takes when idle, when it is ready, what recycling costs: ``python benchmarks/life.py --help``."""

from __future__ import annotations

import argparse

from genro_nats.bench.life_run import add_life_arguments, run_life

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_life_arguments(parser)
    raise SystemExit(run_life(parser.parse_args()))
