"""Durations and sizes as people write them: ``"30s"``, ``2.5``, ``"512MB"``, ``"1.5 GiB"``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from genro_nats.errors import ConfigurationError

__all__ = ["parse_duration", "parse_size", "shown_size"]

_QUANTITY: Final = re.compile(r"\s*([0-9]{1,20})(?:\.([0-9]{1,20}))?\s*([A-Za-z]*)\s*")
_MILLISECONDS: Final[Mapping[str, int]] = {
    "": 1000,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
_PREFIXES: Final = "kmgt"
_BYTES: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
_DURATION_HELP: Final = "write seconds (2.5) or a number with ms, s, m, h or d ('30s', '5m')"
_SIZE_HELP: Final = (
    "write whole bytes or a number with B, KB, MB, GB, TB (1000s) or KiB, MiB, GiB, TiB (1024s)"
)


def parse_duration(value: float | str) -> float:
    """Return `value` in seconds: a number of seconds, or text such as ``"30s"``, ``"5m"``, ``"250ms"``.

    Raises ConfigurationError for anything else, negative and endless durations included.
    """
    seconds = _number(value) if isinstance(value, int | float) else _quantity(value, _MILLISECONDS, 1000)
    if seconds is None:
        raise ConfigurationError(f"{value!r} is not a duration: {_DURATION_HELP}")
    return seconds


def parse_size(value: int | str) -> int:
    """Return `value` in bytes: whole bytes, or text such as ``"512MB"``, ``"1.5 GiB"``, rounded.

    Raises ConfigurationError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    size = _quantity(value, _BYTES)
    if size is None:
        raise ConfigurationError(f"{value!r} is not a size: {_SIZE_HELP}")
    return round(size)


def shown_size(size: int) -> str:
    """Bytes as people read them: ``"512 MB"``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _number(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if not isinstance(value, bool) and math.isfinite(number) and number >= 0 else None


def _quantity(value: object, units: Mapping[str, int], scale: int = 1) -> float | None:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[3].lower() not in units:
        return None
    # Whole numbers up to one last division: a float on the way would lose bytes.
    decimals = match[2] or ""
    dividend, divisor = int(match[1] + decimals) * units[match[3].lower()], 10 ** len(decimals) * scale
    return dividend if divisor == 1 else dividend / divisor
