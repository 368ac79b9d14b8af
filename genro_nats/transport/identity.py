"""Who a user of the server is, as a token of subjects: a server's permissions can name it.

Only a key says who one is for certain, and only where there is one does the token tell users apart.
"""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path
from typing import Final

from genro_nats.config import PoolOptions
from genro_nats.transport.address import Address
from genro_nats.transport.subjects import NONE

__all__ = ["identity", "identity_of", "named_peer", "public_key"]

_DIGITS: Final = 8  # in hex: what made-up ids of tasks have room for


def identity(options: PoolOptions) -> str:
    """The token of the nkey that these options name, alone or in a credentials file; else "".

    Raises ConfigurationError as ``Address``.
    """
    if options.nkey_seed_file or options.credentials_file:
        Address(options)  # checks the files
    if options.nkey_seed_file:
        return identity_of(public_key(Path(options.nkey_seed_file).read_bytes().strip()))
    if options.credentials_file:
        lines = Path(options.credentials_file).read_bytes().splitlines()
        seed = next(after for line, after in pairwise(lines) if b"BEGIN USER NKEY SEED" in line)
        return identity_of(public_key(seed.strip()))
    return ""


def identity_of(public: str) -> str:
    """The token of the user with this public nkey (``U...``)."""
    return hashlib.blake2b(public.encode(), digest_size=_DIGITS // 2).hexdigest()


def public_key(seed: bytes) -> str:
    """The public nkey of a seed."""
    import nkeys  # an extra

    pair = nkeys.from_seed(bytearray(seed))
    try:
        return str(pair.public_key.decode())
    finally:
        pair.wipe()


def named_peer(identity: str, digits: int) -> str:
    """Two tokens, for an inbox: who it is, and so many random hex digits."""
    return f"{identity or NONE}.{os.urandom(digits // 2).hex()}"
