"""What large payloads of synchronous calls cost: ``python benchmarks/payloads.py --help``."""

from __future__ import annotations

import argparse

from genro_nats.bench.arguments import add_common_arguments
from genro_nats.bench.payloads import run_payloads

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser, "5")
    raise SystemExit(run_payloads(parser.parse_args()))
