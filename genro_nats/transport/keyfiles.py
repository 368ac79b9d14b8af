"""Files with keys, checked before nats-py reads them: it would hang on some and hide what is wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError

__all__ = ["check_key_files"]

_CREDENTIALS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


def check_key_files(options: PoolOptions) -> None:
    """Raise ConfigurationError, without what is in the file, if a seed or credentials file can't be used."""
    if options.credentials_file:
        text = _read("credentials_file", options.credentials_file)
        lines = text.splitlines()
        seed = [after for line, after in pairwise(lines) if _CREDENTIALS[1] in line]
        if not all(mark in text for mark in _CREDENTIALS) or not _is_seed("".join(seed[:1])):
            raise _unusable(
                "credentials_file", options.credentials_file, "a JWT and a seed, as nsc writes it"
            )
    if options.nkey_seed_file and not _is_seed(_read("nkey_seed_file", options.nkey_seed_file)):
        raise _unusable("nkey_seed_file", options.nkey_seed_file, "the seed of an nkey (SU...)")


def _read(option: str, path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise ConfigurationError(
            f"The file of {option} can't be read: {error}. Check {option}.", option=option
        ) from error


def _is_seed(text: str) -> bool:
    import nkeys  # an extra

    try:
        nkeys.from_seed(bytearray(text.strip().encode())).wipe()
    except Exception:  # whatever a decoder says; its text could show the seed
        return False
    return True


def _unusable(option: str, path: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{option} {path!r} is no file with {wanted}.", option=option)
