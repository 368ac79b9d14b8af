"""What ``docker compose up`` shows: real jobs are submitted to the fleet, and where each of them ran.

Without Docker: ``cd workers && python demo.py``, in processes of this machine, unless the pool
``heavy`` is configured to be on NATS.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import tasks
from PIL import Image

Placed = tuple[str, int, Any]


def main() -> None:
    """Run it, ``--jobs`` of each sort."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40, help="jobs of each sort; default 40")
    asyncio.run(demo(parser.parse_args().jobs))


async def demo(count: int) -> None:
    """Calls first, then durable tasks."""
    async with tasks.executors:
        ran: Counter[str] = Counter()
        for title, job, arguments, check in jobs():
            began = time.perf_counter()
            work = [(job, *arguments)] * count
            placed = [one async for one in tasks.heavy(here).map(work, concurrency=32)]
            ran.update(host for host, _, _ in placed)
            hosts, children = {host for host, _, _ in placed}, {(host, pid) for host, pid, _ in placed}
            assert all(check(value) for _, _, value in placed), title
            print(
                f"{title:28} {count} calls in {time.perf_counter() - began:5.2f} s, "
                f"on {len(hosts)} workers ({len(children)} children)",
                flush=True,
            )
        durable = await tasks.digest.enqueue_many([bytes([number]) * 100_000 for number in range(count)])
        digests = {await task.result(timeout=60) for task in durable}
        print(f"{'SHA-256, as durable tasks':28} {count} tasks, {len(digests)} different digests")
        for host, calls in sorted(ran.items()):
            print(f"  worker {host} ran {calls} calls")
        print("The fleet works." if tasks.heavy.durable else "The pool works.", flush=True)


def here(work: tuple[Any, ...]) -> Placed:
    """Run a job of ``tasks``, and say where. It travels by value: workers don't have this file."""
    job, *arguments = work
    return socket.gethostname(), os.getpid(), job.local(*arguments)


def jobs() -> list[tuple[str, Any, tuple[Any, ...], Callable[[Any], bool]]]:
    """Title, function, arguments, and what its result must be."""
    text = b"the quick brown fox jumps over the lazy dog " * 20_000
    return [
        ("thumbnails", tasks.thumbnail, (photo(),), lambda jpeg: bool(jpeg.startswith(b"\xff\xd8"))),
        ("text of a PDF", tasks.pdf_text, (pdf("Hello, fleet"),), lambda pages: pages == ["Hello, fleet"]),
        ("gzip", tasks.compressed, (text, "gzip"), lambda small: len(small) < len(text) / 100),
        ("zstd", tasks.compressed, (text, "zstd"), lambda small: len(small) < len(text) / 100),
        ("SHA-256", tasks.digest, (text,), lambda found: len(found) == 64),
        ("look-ups in a loaded model", tasks.characters, ("snowman",), lambda found: "☃" in found),
    ]


def photo() -> bytes:
    """A JPEG of 1,600 by 1,200 pixels."""
    noise = Image.frombytes("RGB", (80, 60), random.Random(7).randbytes(80 * 60 * 3))
    out = io.BytesIO()
    noise.resize((1600, 1200)).save(out, "JPEG")
    return out.getvalue()


def pdf(text: str) -> bytes:
    """A PDF file of one page that says ``text``."""
    drawn = f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        " /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
    ]
    file, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(file)}\n%%EOF\n"
    return f"{file}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


if __name__ == "__main__":
    main()
