"""What a call costs: ``python benchmarks/calls.py --help``. The same as ``genro-nats bench``."""

from __future__ import annotations

import argparse

from genro_nats.bench import add_arguments, run_bench

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    raise SystemExit(run_bench(parser.parse_args()))
