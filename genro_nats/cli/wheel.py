"""A wheel as a place to import from: unpacked, for what is compiled can't be imported from a zip file."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from genro_nats.errors import ConfigurationError

__all__ = ["unpacked"]


def unpacked(wheel: Path) -> list[str]:
    """The directories to import from, of a copy that is private to this process and ends with it.

    A wheel that is replaced under a running worker changes nothing there. What it depends
    on is not installed, and its scripts are not there.

    Raises:
        ConfigurationError: it can't be read, or is no wheel.
    """
    target = Path(tempfile.mkdtemp(prefix="genro-nats-wheel-"))
    atexit.register(_remove, target, os.getpid())
    try:
        with zipfile.ZipFile(wheel) as archive:
            if not any(name.endswith(".dist-info/WHEEL") for name in archive.namelist()):
                raise ConfigurationError(f"--path {wheel}: no wheel, for it has no .dist-info/WHEEL.")
            archive.extractall(target)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ConfigurationError(f"--path {wheel}: {error}") from error
    data = target.glob("*.data/*lib")  # purelib and platlib, whose content an installer would move up
    return [str(target), *map(str, sorted(data))]


def _remove(target: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child that was forked
        shutil.rmtree(target, ignore_errors=True)
