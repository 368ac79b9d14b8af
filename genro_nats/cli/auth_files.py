"""The files of ``genro-nats auth init``: a configuration, and the seed of a key for each user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from genro_nats.errors import ConfigurationError
from genro_nats.server.secured import SecuredConfig
from genro_nats.transport.identity import public_key

__all__ = ["CONFIG", "KeyFile", "key_file", "key_path", "write_config"]

CONFIG = "nats-server.conf"
_OTHERS = 0o077  # may read, write or run it


class KeyFile(NamedTuple):
    """A user's seed file and its public nkey.

    ``made``: it was not there before. ``opened``: it was, and others than its owner could read it.
    """

    path: Path
    public: str
    made: bool
    opened: bool = False


def key_path(directory: Path, name: str) -> Path:
    """Where the seed of this user is."""
    return directory / f"{name}.nk"


def key_file(directory: Path, name: str, *, renew: bool) -> KeyFile:
    """The key of a user: the one that is there, or a new one.

    Raises:
        ConfigurationError: the extra is missing, or what is there is no seed.
    """
    path = key_path(directory, name)
    try:
        import nkeys
    except ImportError:
        raise ConfigurationError('Keys need an extra: pip install "genro-nats[nkeys]".') from None
    if path.exists() and not renew:
        try:
            public = public_key(path.read_bytes().strip())
        except Exception:  # whatever a decoder says; its text could show the seed
            raise ConfigurationError(
                f"{path} is no file with the seed of an nkey: remove it, or state --new-keys."
            ) from None
        opened = bool(path.stat().st_mode & _OTHERS)
        if opened:
            path.chmod(0o600)
        return KeyFile(path, public, made=False, opened=opened)
    seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    _write(path, seed + b"\n", 0o600)
    return KeyFile(path, public_key(seed), made=True)


def write_config(directory: Path, config: SecuredConfig) -> Path:
    """Write the configuration, which holds no secret; where it is."""
    path = directory / CONFIG
    _write(path, config.render().encode(), 0o644)
    return path


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step; nobody else can read a part of it meanwhile, whatever was there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
