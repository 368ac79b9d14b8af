"""Whether and when a failed task is tried again: pure decisions on plain data.

Failures (the function raised) count against ``retries``; deaths (its child or
worker ended while it ran) are counted apart, because they may be nobody's
fault or kill one worker after the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from genro_nats.codec.error_text import bases, type_name
from genro_nats.errors import ConfigurationError, Retry

__all__ = [
    "MAX_DEATHS",
    "MAX_DELAY",
    "MAX_MISSES",
    "GiveUp",
    "RetryAfter",
    "RetryPolicy",
    "after_death",
    "after_failure",
    "after_miss",
    "asked_delay",
    "type_names",
]

MAX_DEATHS: Final = 3
MAX_MISSES: Final = 150
_MISSED: Final = (0.1, 2.0)  # seconds until it is tried elsewhere, first and longest
MAX_DELAY: Final = 366 * 86_400.0  # seconds; what is asked to wait longer is tried after this


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Settle it as failed, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a task's failures are met.

    ``retries``: attempts after the first one. Before attempt n+1 it waits, in seconds, anything
    from 0 to ``backoff * factor ** (n - 1)``, at most ``max_backoff``: full jitter keeps tasks
    that failed together from returning together.
    ``retry_on``: names of exception classes (``module:qualname``, as ``type_names`` gives) that
    are tried again, subclasses included; empty: all. ``give_up_on`` are not, and win.
    """

    retries: int = 0
    backoff: float = 1.0
    factor: float = 2.0
    max_backoff: float = 600.0
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigurationError(f"retries={self.retries}: give 0 or more")
        if not (_time(self.backoff) and _time(self.max_backoff)):
            raise ConfigurationError(
                f"backoff={self.backoff}, max_backoff={self.max_backoff}: give seconds, 0 or more"
            )
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ConfigurationError(f"factor={self.factor}: give 1 or more")

    def ceiling(self, attempt: int) -> float:
        """The longest wait after that attempt (1 for the first), in seconds."""
        try:
            return min(self.max_backoff, self.backoff * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_backoff if self.backoff else 0.0


def after_failure(
    policy: RetryPolicy,
    attempt: int,
    error_types: Collection[str],
    *,
    draw: float,
    asked: float | None = None,
) -> RetryAfter | GiveUp:
    """What follows when attempt number ``attempt`` (from 1; deaths don't count) raised.

    ``error_types``: the exception's classes, as ``type_names`` gives them. ``draw``: a random
    number from 0 to 1. ``asked``: seconds, when the function itself asked to be tried again
    after that time; filters don't apply then, the count does.
    """
    if attempt > policy.retries:
        tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return GiveUp(f"failed after {tries}")
    if asked is not None:
        return RetryAfter(min(max(0.0, asked), MAX_DELAY))
    refused = next((name for name in policy.give_up_on if name in error_types), None)
    if refused is not None:
        return GiveUp(f"{refused} is not tried again (give_up_on)")
    if policy.retry_on and not any(name in error_types for name in policy.retry_on):
        return GiveUp("the exception is none of retry_on")
    return RetryAfter(min(policy.ceiling(attempt) * draw, MAX_DELAY))


def after_death(deaths: int) -> RetryAfter | GiveUp:
    """What follows when the child or worker died while it ran, for the ``deaths``-th time."""
    if deaths >= MAX_DEATHS:
        return GiveUp(f"its child or worker died {deaths} times while it ran")
    return RetryAfter(0.0)


def after_miss(misses: int, *, draw: float) -> RetryAfter | GiveUp:
    """What follows when a worker does not have the function, for the ``misses``-th time.

    One with newer code may: so it goes back for about four minutes. The pauses vary (``draw``: a random
    number from 0 to 1), or several tasks in step could meet the same workers again and again.
    """
    if misses >= MAX_MISSES:
        return GiveUp(f"its function was found on no worker ({misses} tries)")
    first, longest = _MISSED
    return RetryAfter(min(longest, first * 2.0 ** (misses - 1)) * (0.5 + draw / 2))


def asked_delay(error: BaseException) -> float | None:
    """The seconds after which an exception asks to be tried again; None: it does not ask. Never raises.

    A ``Retry`` whose delay was changed to what is no number, or hidden by a subclass, asks for no delay.
    """
    if not issubclass(type(error), Retry):  # isinstance would ask its __class__
        return None
    try:
        return min(max(0.0, float(getattr(error, "delay", 0.0))), MAX_DELAY)
    except BaseException:
        return 0.0


def type_names(kind: type[BaseException]) -> tuple[str, ...]:
    """The names of an exception class and its bases, the most special first."""
    return tuple(type_name(base) for base in bases(kind) if base is not object)


def _time(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
