"""How a fleet of workers shares its calls: ``python benchmarks/fleet.py --help``."""

from __future__ import annotations

import argparse

from genro_nats.bench.arguments import add_common_arguments
from genro_nats.bench.fleet_run import run_fleet

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser, "5")
    raise SystemExit(run_fleet(parser.parse_args()))
