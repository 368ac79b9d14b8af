"""What large payloads of synchronous calls cost: ``python benchmarks/payloads.py --help``."""

from __future__ import annotations

import argparse

from genro_nats.bench.payloads import add_payload_arguments, run_payloads

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_payload_arguments(parser)
    raise SystemExit(run_payloads(parser.parse_args()))
