"""File locks: one that two starting processes agree by, others that last as long as a server or its owner."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genro_nats.errors import ConfigurationError, TransportError

__all__ = ["is_locked", "locked", "remaining", "try_lock"]

_PAUSE = 0.01


def try_lock(path: Path) -> int | None:
    """Lock ``path`` and return its descriptor, or None if another process has it.

    The lock belongs to the open file: a child that inherits the descriptor keeps it
    locked until the child ends too, however it ends. That is how a server is known
    to live: nobody can forge it, and no process id that was given out again is
    mistaken for it.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"{path} can't be locked: {error}", path=str(path)) from error
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether somebody has locked ``path``."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared: two who ask at once must not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remaining(deadline: float) -> float:
    """Seconds left until ``deadline`` (monotonic), never negative."""
    return max(0.0, deadline - time.monotonic())


@contextmanager
def locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold the lock of ``path`` for a block; TransportError if ``deadline`` (monotonic) passes first."""
    import fcntl

    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise TransportError(
                f"another process is starting or ending the server of {path.parent} "
                f"and did not finish in time (it holds {path})",
                path=str(path),
            )
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        # Said aloud: a child that some other thread forked meanwhile has a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
