"""Real jobs for a fleet: thumbnails, text of PDF files, compression, digests, a model for look-ups.

They run wherever the pools are configured to be: in processes of this machine, or, with
``kind = "nats"``, on workers started with ``genro-nats worker --config workers/worker.toml``.
What they need is in ``workers/requirements.txt``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import unicodedata
from typing import Literal

from PIL import Image
from pypdf import PdfReader

from genro_nats import ExecutorRegistry, current_call

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

executors = ExecutorRegistry()
heavy = executors.executor(name="heavy", subject="tasks.heavy", initializer="tasks:load")

_HIGHEST = 0xABFF  # what follows are syllables and ideographs by the ten thousand
_characters: dict[str, set[str]] = {}  # by the words of their names


@heavy(timeout=60)
def thumbnail(image: bytes, size: int = 128) -> bytes:
    """A JPEG of the image, ``size`` pixels at most in width and height. Raises as Pillow does."""
    with Image.open(io.BytesIO(image)) as opened:
        opened.draft("RGB", (size, size))  # a JPEG is decoded no larger than that takes
        small = opened.convert("RGB")
    small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return out.getvalue()


@heavy(timeout=300)
def pdf_text(pdf: bytes) -> list[str]:
    """The text of each page; tells how far it is. Raises as pypdf does."""
    pages = PdfReader(io.BytesIO(pdf)).pages
    texts = []
    for number, page in enumerate(pages, 1):
        texts.append(page.extract_text())
        current_call().progress(number / len(pages), f"page {number} of {len(pages)}")
    return texts


@heavy(timeout=300)
def compressed(data: bytes, how: Literal["gzip", "zstd"] = "zstd", level: int = 6) -> bytes:
    """``data`` as one gzip member or zstd frame."""
    return gzip.compress(data, level, mtime=0) if how == "gzip" else zstd.compress(data, level)


@heavy(timeout=300)
def expanded(data: bytes) -> bytes:
    """The reverse of ``compressed``, whichever it was."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else zstd.decompress(data)


@heavy(timeout=300)
def digest(data: bytes, algorithm: str = "sha256") -> str:
    """In hex."""
    return hashlib.new(algorithm, data).hexdigest()


def load() -> None:
    """Load the model, once in each child before its first call: ``--init tasks:load``."""
    for number in range(32, _HIGHEST):
        for word in unicodedata.name(chr(number), "").split():
            if not word.startswith("IDEOGRAPH-"):
                _characters.setdefault(word, set()).add(chr(number))


@heavy
def characters(*words: str) -> dict[str, str]:
    """The characters whose names have all of these words, with their names."""
    found = [_characters.get(word.upper(), set()) for word in words]
    return {character: unicodedata.name(character) for character in sorted(set.intersection(*found))}
