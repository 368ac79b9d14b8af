"""The demonstration's job: measure and compress one module. Runs in children, here and on workers."""

from __future__ import annotations

import ast
import hashlib
import os
import socket
import warnings
import zlib
from dataclasses import dataclass

__all__ = ["Measured", "measure"]

_BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.BoolOp, ast.IfExp, ast.comprehension)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


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


def _parsed(source: bytes) -> ast.AST | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what modules do wrong is not ours to tell
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
