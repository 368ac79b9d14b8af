"""How much a run of the benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["BIG", "CHILDREN", "LANES", "Plan"]

CHILDREN = 2  # worker processes of every pool
LANES = 100  # calls in flight
BIG = 8 * 1024 * 1024  # bytes of the large echo


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Numbers of calls and repetitions; durations are seconds."""

    quick: bool = False
    rounds: int = 7
    sequential: int = 500
    in_flight: int = 10_000
    big_echoes: int = 7
    outstanding: int = 10_000
    repeats: int = 3
    longs: int = 20
    long_seconds: float = 0.2
    shorts: int = 200
    short_seconds: float = 0.001
    imports: int = 10
    idle_seconds: float = 10.0

    @classmethod
    def of(cls, *, quick: bool, rounds: int | None) -> Self:
        """The default run, or one of half a minute whose figures only show that all works."""
        if not quick:
            return cls(rounds=rounds or 7)
        return cls(
            quick=True,
            rounds=rounds or 1,
            sequential=100,
            in_flight=2_000,
            big_echoes=2,
            repeats=1,
            longs=10,
            long_seconds=0.1,
            shorts=100,
            imports=3,
            idle_seconds=2.0,
        )
