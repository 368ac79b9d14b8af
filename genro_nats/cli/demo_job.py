"""The demonstration's jobs: measure and compress one module, or many. They run in children, here and on workers."""

from __future__ import annotations

import ast
import hashlib
import os
import socket
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genro_nats.message import current_call

__all__ = ["Measured", "Survey", "digest_of", "measure", "survey"]

_BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.BoolOp, ast.IfExp, ast.comprehension)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_KEPT_EACH = 10  # modules between two checkpoints


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one module, and who found it out. ``size`` and ``packed`` are bytes.

    ``parsed`` is False for what is no valid Python: the standard library has some, for its tests.
    """

    name: str
    size: int
    lines: int
    parsed: bool
    functions: int
    classes: int
    branches: int
    packed: int
    digest: str
    host: str
    pid: int

    @property
    def facts(self) -> str:
        """All of it that doesn't depend on where it ran, as one line."""
        return (
            f"{self.name} {self.size} {self.lines} {self.parsed} {self.functions} {self.classes} "
            f"{self.branches} {self.packed} {self.digest}"
        )


def measure(name: str, source: bytes) -> Measured:
    """Parse, measure and compress one module."""
    tree = _parsed(source)
    kinds = [type(node) for node in ast.walk(tree)] if tree else []
    packed = zlib.compress(source, 6)
    return Measured(
        name=name,
        size=len(source),
        lines=source.count(b"\n"),
        parsed=tree is not None,
        functions=sum(kind in _FUNCTIONS for kind in kinds),
        classes=kinds.count(ast.ClassDef),
        branches=sum(kind in _BRANCHES for kind in kinds),
        packed=len(packed),
        digest=hashlib.sha256(packed).hexdigest(),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def digest_of(facts: Iterable[str]) -> str:
    """One hash over the facts of many modules, whatever their order."""
    return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()


@dataclass(slots=True)
class Survey:
    """Many modules measured; of each attempt the child's pid, and how many it found measured already."""

    facts: set[str] = field(default_factory=set)
    measured: int = 0
    pids: list[int] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """One hash over all of it."""
        return digest_of(self.facts)


def survey(root: str, names: Sequence[str]) -> Survey:
    """Measure modules one after the other; another attempt goes on where the last one left off."""
    call = current_call()
    found: Survey = call.checkpointed or Survey()
    found.pids.append(os.getpid())
    found.resumed_at.append(found.measured)
    for name in names[found.measured :]:
        found.facts.add(measure(name, Path(root, name).read_bytes()).facts)
        found.measured += 1
        if found.measured % _KEPT_EACH == 0:
            call.checkpoint(found)
            call.progress(found.measured / len(names), f"{found.measured} modules", os.getpid())
    return found


def _parsed(source: bytes) -> ast.AST | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what modules do wrong is not ours to tell
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
