"""Where this process and its children import from."""

from __future__ import annotations

import sys
from pathlib import Path

from genro_nats.cli.wheel import unpacked
from genro_nats.errors import ConfigurationError

__all__ = ["set_up_path"]


def set_up_path(places: tuple[str, ...]) -> None:
    """The working directory and ``places`` (``--path``: directories and wheels) can be imported from.

    Raises:
        ConfigurationError: one of them isn't there, or is a file that is no wheel.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    sys.path[:0] = [found for place in places for found in _found(Path(place).expanduser().absolute())]


def _found(place: Path) -> list[str]:
    if place.is_dir():
        return [str(place)]
    if place.suffix == ".whl":
        return unpacked(place)
    what = "is neither a directory nor a wheel" if place.exists() else "isn't there"
    raise ConfigurationError(f"--path {place}: it {what}.")
