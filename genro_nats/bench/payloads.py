"""What large payloads cost: the benchmark behind ``benchmarks/payloads.py``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Final

from genro_nats.bench.arrays import ArrayFigures, time_arrays
from genro_nats.bench.beside import BesideFigures, time_beside
from genro_nats.bench.closures import ClosureFigures, time_closures
from genro_nats.bench.codecs import CodecFigures, time_codecs
from genro_nats.bench.functions import echo, echo_large
from genro_nats.bench.ground import bench_server, echo_peer, login, pool_options, worker_peer
from genro_nats.bench.large import MIB, EchoFigures, HugeFigures, time_big, time_huge
from genro_nats.bench.limits import Verdict
from genro_nats.bench.machine import Machine
from genro_nats.bench.plan import CHILDREN
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts
from genro_nats.bench.signed import SignedFigures, time_signed
from genro_nats.bench.table import show
from genro_nats.executor.nats import NatsExecutor
from genro_nats.executor.process import ProcessExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.transport.floor import FloorClient

__all__ = ["PayloadFigures", "run_payloads"]

_HUGE: Final = (100 * MIB, 1024 * MIB)
_BESIDE: Final = 100 * MIB
_ARRAY: Final = 100 * MIB
_ROUNDS: Final = 5
_SUBJECT: Final = "bench.payloads"
_FLOOR: Final = "bench.floor"


@dataclass(slots=True)
class PayloadFigures:
    """All that was measured."""

    big: EchoFigures
    beside: BesideFigures
    signed: SignedFigures
    closures: list[ClosureFigures]
    arrays: ArrayFigures
    huge: list[HugeFigures] = field(default_factory=list)
    codecs: CodecFigures = field(default_factory=CodecFigures)


def run_payloads(args: argparse.Namespace) -> int:
    """Measure and print; the exit code: 0, or with ``--check`` 1 when a limit is missed."""
    machine = Machine.here()
    sys.stdout.write("\n".join(machine.lines()) + "\n")
    progress, count = Progress(), 1 if args.quick else args.rounds or _ROUNDS
    with bench_server() as server:
        figures = asyncio.run(_measure(server, count, args.quick, progress))
    progress("payloads: the codecs")
    figures.codecs = time_codecs(3 if args.quick else 60)
    progress.clear()
    found = payload_verdicts(figures)
    _show(figures)
    show_verdicts(found)
    if args.json is not None:
        limits = [{**asdict(it), "passed": it.passed} for it in found]
        args.json.write_text(json.dumps({"machine": asdict(machine), **asdict(figures), "limits": limits}))
    return int(args.check and not all(it.passed for it in found))


async def _measure(server: EmbeddedServer, count: int, quick: bool, progress: Progress) -> PayloadFigures:
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
        big = await time_big(floor.request, call, count, 3 if quick else 9)
        progress("payloads: small calls beside large ones")
        size = _BESIDE // 10 if quick else _BESIDE
        rounds, seconds = (1, 0.5) if quick else (2 * count, 3.0)
        beside = await time_beside(small, call, floor.request, size, rounds, seconds)
        progress("payloads: signed calls")
        turns = (2, 500, 1) if quick else (2 * count, 10_000, 5)
        signed = await time_signed(server, *turns)
        progress("payloads: closures over 5 MB")
        local = await stack.enter_async_context(ProcessExecutor("bench-local", max_workers=CHILDREN))
        calls = 100 if quick else 1000
        closures = [await time_closures(it, calls, count) for it in (pool, local)]
        progress("payloads: arrays to a local process")
        arrays = await time_arrays(_ARRAY // 10 if quick else _ARRAY, count)
        return PayloadFigures(big, beside, signed, closures, arrays, huge)


def payload_verdicts(figures: PayloadFigures) -> list[Verdict]:
    """A verdict for each limit."""
    found = [Verdict("nats: 8 MiB echo", figures.big.ratio, 1.5, "x nats-py echo")]
    for it in figures.huge:
        what = f"nats: {it.size // MIB} MiB echo"
        found.append(Verdict(f"{what}, each way", it.rate / 1e6, 150, "MB/s", at_most=False))
        found.append(Verdict(f"{what}, memory added to the caller", it.caller / it.size, 2.5, "x payload"))
        found.append(Verdict(f"{what}, memory added to the worker", it.worker / it.size, 2.5, "x payload"))
    if figures.codecs.data:
        found.append(
            Verdict("codec: 1 KB dictionary and back, as data", figures.codecs.ratio, 1.0, "x pickle")
        )
    for closure in figures.closures:
        what = f"{closure.kind}: closure over 5 MB, {closure.calls:,} calls"
        found.append(Verdict(what, closure.ratio, 1.3, "x by name"))
    found.append(Verdict("nats: small calls beside, p99", figures.beside.ratio, 1.0, "x beside bare load"))
    found.append(
        Verdict("nats: signed calls/s, 100 in flight", figures.signed.ratio, 0.9, "x unsigned", at_most=False)
    )
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
    rows = [["calls/s, 100 in flight", *(str(n + 1) for n in range(len(figures.signed.plain)))]]
    rows.append(["unsigned", *(f"{rate:,.0f}" for rate in figures.signed.plain)])
    rows.append(["signed", *(f"{rate:,.0f}" for rate in figures.signed.signed)])
    show("Signed calls, turn by turn", rows)
    codecs = figures.codecs
    rows = [["a call and its reply", "us"]]
    rows += [
        [name, f"{median(times) * 1e6:.1f}"]
        for name, times in (("pickle", codecs.pickle), ("data", codecs.data))
    ]
    show(f"A dictionary of {codecs.size} bytes in both codecs", rows)
    for it in figures.closures:
        rows = [[f"{it.calls:,} calls", *(str(n + 1) for n in range(len(it.by_name)))]]
        rows.append(["by name, s", *(f"{s:.3f}" for s in it.by_name)])
        rows.append(["closure over 5 MB, s", *(f"{s:.3f}" for s in it.by_value)])
        show(f"Functions by value, {it.kind}", rows)
    rows = [
        [f"{figures.arrays.size // MIB} MiB array", *(str(n + 1) for n in range(len(figures.arrays.ours)))]
    ]
    rows.append(["ProcessPoolExecutor, ms", *(f"{s * 1e3:.0f}" for s in figures.arrays.stdlib)])
    rows.append(["process, ms", *(f"{s * 1e3:.0f}" for s in figures.arrays.ours)])
    show("An array to a local process and back", rows)
