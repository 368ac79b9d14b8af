"""What large payloads cost: the benchmark behind ``benchmarks/payloads.py``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from genro_nats.bench.arrays import ArrayFigures, time_arrays
from genro_nats.bench.beside import BesideFigures, time_beside
from genro_nats.bench.functions import echo, echo_large
from genro_nats.bench.ground import bench_server, echo_peer, login, pool_options, worker_peer
from genro_nats.bench.large import MIB, EchoFigures, HugeFigures, time_big, time_huge
from genro_nats.bench.limits import Verdict
from genro_nats.bench.machine import Machine
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts
from genro_nats.bench.table import show
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.transport.floor import FloorClient

__all__ = ["PayloadFigures", "add_payload_arguments", "run_payloads"]

_HUGE: Final = (100 * MIB, 1024 * MIB)
_BESIDE: Final = 100 * MIB
_ARRAY: Final = 100 * MIB
_SUBJECT: Final = "bench.payloads"
_FLOOR: Final = "bench.floor"


@dataclass(slots=True)
class PayloadFigures:
    """All that was measured."""

    big: EchoFigures
    beside: BesideFigures
    arrays: ArrayFigures
    huge: list[HugeFigures] = field(default_factory=list)


def add_payload_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``run_payloads`` takes."""
    parser.add_argument("--quick", action="store_true", help="small and short: shows that all works")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE too")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")


def run_payloads(args: argparse.Namespace) -> int:
    """Measure and print; the exit code: 0, or with ``--check`` 1 when a limit is missed."""
    machine = Machine.here()
    sys.stdout.write("\n".join(machine.lines()) + "\n")
    progress = Progress()
    with bench_server() as server:
        figures = asyncio.run(_measure(server, 1 if args.quick else args.rounds, args.quick, progress))
    progress.clear()
    found = payload_verdicts(figures)
    _show(figures)
    show_verdicts(found)
    if args.json is not None:
        limits = [{**asdict(it), "passed": it.passed} for it in found]
        args.json.write_text(json.dumps({"machine": asdict(machine), **asdict(figures), "limits": limits}))
    return int(args.check and not all(it.passed for it in found))


async def _measure(server: EmbeddedServer, rounds: int, quick: bool, progress: Progress) -> PayloadFigures:
    async with AsyncExitStack() as stack:
        stack.enter_context(echo_peer(server, _FLOOR, uvloop=False))
        worker = stack.enter_context(worker_peer(server, _SUBJECT))
        floor = await FloorClient.connect(**login(server), subject=_FLOOR)
        stack.push_async_callback(floor.aclose)
        pool = await stack.enter_async_context(NatsExecutor("bench", **pool_options(server, _SUBJECT)))

        async def call(data: bytes) -> bytes:
            answer: bytes = await pool.submit(echo_large, data)
            return answer

        async def small(data: bytes) -> bytes:
            answer: bytes = await pool.submit(echo, data)
            return answer

        await call(bytes(2 * MIB))
        huge = []
        for size in _HUGE[:1] if quick else _HUGE:  # first, while the caller's heap has no room to reuse
            progress(f"payloads: {size // MIB} MiB echoes")
            huge.append(await time_huge(call, size, worker.pid, 1 if quick else 2))
        progress("payloads: 8 MiB echoes")
        big = await time_big(floor.request, call, rounds, 3 if quick else 9)
        progress("payloads: small calls beside large ones")
        size = _BESIDE // 10 if quick else _BESIDE
        beside = await time_beside(small, call, floor.request, size, rounds, 0.5 if quick else 3.0)
        progress("payloads: arrays to a local process")
        arrays = await time_arrays(_ARRAY // 10 if quick else _ARRAY, rounds)
        return PayloadFigures(big, beside, arrays, huge)


def payload_verdicts(figures: PayloadFigures) -> list[Verdict]:
    """A verdict for each limit."""
    found = [Verdict("nats: 8 MiB echo", figures.big.ratio, 1.5, "x nats-py echo")]
    for it in figures.huge:
        what = f"nats: {it.size // MIB} MiB echo"
        found.append(Verdict(f"{what}, each way", it.rate / 1e6, 150, "MB/s", at_most=False))
        found.append(Verdict(f"{what}, memory added to the caller", it.caller / it.size, 2.5, "x payload"))
        found.append(Verdict(f"{what}, memory added to the worker", it.worker / it.size, 2.5, "x payload"))
    found.append(Verdict("nats: small calls beside, p99", figures.beside.ratio, 1.0, "x beside bare load"))
    what = f"process: {figures.arrays.size // MIB} MiB array, there and back"
    found.append(Verdict(what, figures.arrays.ratio, 5, "x as fast as ProcessPoolExecutor", at_most=False))
    return found


def _show(figures: PayloadFigures) -> None:
    rows = [["8 MiB echo", *(str(n + 1) for n in range(len(figures.big.ours)))]]
    rows.append(["nats-py echo, ms", *(f"{s * 1e3:.1f}" for s in figures.big.floor)])
    rows.append(["nats, ms", *(f"{s * 1e3:.1f}" for s in figures.big.ours)])
    show("Round by round", rows)
    rows = [["small calls, p99", *(str(n + 1) for n in range(len(figures.beside.ours)))]]
    rows.append(["beside large calls, ms", *(f"{s * 1e3:.2f}" for s in figures.beside.ours)])
    rows.append(["their rate each way, MB/s", *(f"{rate / 1e6:.0f}" for rate, _ in figures.beside.rates)])
    rows.append(["beside bare load, ms", *(f"{s * 1e3:.2f}" for s in figures.beside.bare)])
    rows.append(["its rate each way, MB/s", *(f"{rate / 1e6:.0f}" for _, rate in figures.beside.rates)])
    show("Small calls beside large ones", rows)
    rows = [
        [f"{figures.arrays.size // MIB} MiB array", *(str(n + 1) for n in range(len(figures.arrays.ours)))]
    ]
    rows.append(["ProcessPoolExecutor, ms", *(f"{s * 1e3:.0f}" for s in figures.arrays.stdlib)])
    rows.append(["process, ms", *(f"{s * 1e3:.0f}" for s in figures.arrays.ours)])
    show("An array to a local process and back", rows)
