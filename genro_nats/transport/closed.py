"""Writing to a connection that was closed meanwhile: an OSError on every Python.

In 3.12 and 3.13.5 asyncio's ``writelines`` raises a TypeError there, which nats-py does not
expect: its flusher ends silently, and so does the task that was to close it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["refuse_when_closed"]


def refuse_when_closed(transport: Any) -> None:
    """Let nats-py's TCP transport raise ConnectionResetError once asyncio's is closed."""
    if not hasattr(transport, "_io_writer"):
        return  # WebSockets
    write = transport.writelines

    def writelines(payload: Iterable[bytes]) -> None:
        # The writer is another one after an upgrade to TLS.
        if transport._io_writer.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        write(payload)

    transport.writelines = writelines
