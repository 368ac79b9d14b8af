"""Finding the ``nats-server`` executable, and which version it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from genro_nats.errors import ConfigurationError

__all__ = ["find_server", "server_version"]

_NAME = "nats-server.exe" if sys.platform == "win32" else "nats-server"
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def find_server() -> Path:
    """The ``nats-server`` that the ``embedded`` extra installed, else the one on ``PATH``.

    Raises:
        ConfigurationError: there is neither.
    """
    for folder in _script_folders():
        if os.access(folder / _NAME, os.X_OK) and (folder / _NAME).is_file():
            return folder / _NAME
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigurationError(
            "no nats-server executable was found beside this Python or on PATH: "
            'pip install "genro-nats[embedded]", or install nats-server, '
            "or give the url= of a server that runs already"
        )
    return Path(on_path).absolute()


def _script_folders() -> Iterator[Path]:
    yield Path(sysconfig.get_path("scripts"))
    # Not resolved: a venv's python is a link to one outside of it.
    yield Path(sys.executable).parent
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))


def server_version(path: Path) -> tuple[int, int, int]:
    """The version that the executable at ``path`` says it has.

    Raises:
        ConfigurationError: it can't be run, or says nothing that reads as a version.
    """
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{path} can't be run: {error}", path=str(path)) from error
    return parse_version(done.stdout, path)


def parse_version(text: str, source: object) -> tuple[int, int, int]:
    """The first ``1.2.3`` in ``text``, which ``source`` said; ConfigurationError if there is none."""
    found = _VERSION.search(text)
    if found is None:
        raise ConfigurationError(f"{source} names no nats-server version: {text[:200]!r}")
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch
