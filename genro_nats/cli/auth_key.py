"""``genro-nats auth key``: a new shared key, printed or put into a file of keys."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from genro_nats.codec.signing import Keyring, new_key
from genro_nats.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_EPILOG: Final = """\
examples:
  genro-nats auth key --file keys         a first key; give the file to callers and workers: key_file, --key-file
  GENRO_NATS_KEY=$(genro-nats auth key)   the same without a file

Changing keys without a pause, restarting callers and workers after each step:
  1. genro-nats auth key --file keys --last   everybody knows the new key, nobody signs with it yet
  2. move its line to the top                 everybody signs with it, and still knows the old one
  3. delete the old line                      once no stored task or result is signed with it any more
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--id", metavar="ID", help="1 to 8 letters, digits, - or _; default: the date, 20261231"
    )
    parser.add_argument(
        "--file", metavar="FILE", help="put it there instead of printing it; only its owner may read the file"
    )
    parser.add_argument(
        "--last", action="store_true", help="behind the keys that stand there: it does not sign yet"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a key; the exit code."""
    key = new_key(arguments.id or time.strftime("%Y%m%d"))
    if arguments.file is None:
        if arguments.last:
            raise ConfigurationError("--last needs --file: it says where in the file the key stands.")
        print(key)
    else:
        _put(Path(arguments.file).expanduser(), key, last=arguments.last)
    return 0


def _put(path: Path, key: str, *, last: bool) -> None:
    try:
        path = path.resolve()  # who has another name for the file reads the same
        present = path.read_text(encoding="ascii") if path.exists() else ""
        if present and not present.endswith("\n"):
            present += "\n"
        text = f"{present}{key}\n" if last else f"{key}\n{present}"
        ids = Keyring.parse(text, f"{path}").ids  # before anything is lost
        _replace(path, text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise ConfigurationError(f"{path} can't be changed: {reason}.") from None
    print(f"{path}: {', '.join(ids)}; {ids[0]} signs")


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner may read, as a whole or not at all."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(number, "w", encoding="ascii") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
