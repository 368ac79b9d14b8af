"""``workers/``: the real jobs and the fleet's demonstration, in processes of this machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CALLER = """
import asyncio, io
import demo, tasks
from PIL import Image

async def main():
    async with tasks.executors:
        photo = demo.photo()
        small = Image.open(io.BytesIO(await tasks.thumbnail(photo, 100)))
        print(Image.open(io.BytesIO(photo)).size, small.size, small.format)
        seen = []
        text = await tasks.pdf_text.options(on_progress=seen.append)(demo.pdf("One page"))
        print(text, seen[-1].text)
        data = b"word " * 10_000
        for how in ("gzip", "zstd"):
            packed = await tasks.compressed(data, how)
            print(how, len(packed) < 200, packed[:2].hex(), await tasks.expanded(packed) == data)
        print(await tasks.digest(b""), await tasks.digest(b"", "md5"))
        print(await tasks.characters("black", "snowman"), await tasks.characters("nothing"))
        try:
            await tasks.thumbnail(b"no image")
        except Exception as error:
            print(type(error).__name__)

asyncio.run(main())
"""


def run(*command: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GENRO_", "NATS_"))}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT / "workers",
        env={**own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_jobs_do_what_they_say() -> None:
    assert run("-c", CALLER).splitlines() == [
        "(1600, 1200) (100, 75) JPEG",
        "['One page'] page 1 of 1",
        "gzip True 1f8b True",
        "zstd True 28b5 True",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 d41d8cd98f00b204e9800998ecf8427e",
        "{'⛇': 'BLACK SNOWMAN'} {}",
        "UnidentifiedImageError",
    ]


def test_the_demonstration() -> None:
    lines = run("demo.py", "--jobs", "6").splitlines()
    assert len(lines) == 9
    assert all(" 6 calls in " in line for line in lines[:6])
    assert "6 tasks, 6 different digests" in lines[6]
    assert re.fullmatch(r"  worker \S+ ran 36 calls", lines[7])
    assert lines[8] == "The pool works."


def test_they_use_the_public_api_only() -> None:
    for file in (ROOT / "workers").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genro_nats"):
                assert node.module == "genro_nats", f"{file.name} imports {node.module}"
