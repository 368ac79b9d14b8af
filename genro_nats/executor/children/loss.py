"""What callers are told of a child that ended while it ran their calls."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from genro_nats.errors import WorkerLostError
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.work import Work

__all__ = ["lost_error"]


def lost_error(child: Child, orphans: Sequence[Work]) -> WorkerLostError:
    """Why it ended, if that is known, and which calls it had."""
    if child.verdict is not None:
        return child.verdict
    status = child.exit_status
    how = "was ended" if child.fault else "ended" if status is None else _describe(status)
    calls = ", ".join(work.key.decode(errors="replace") for work in orphans)
    what = f"{calls}. The call may have had effects" if calls else "no call"
    why = f" What it sent could not be received: {child.fault}." if child.fault else ""
    return WorkerLostError(
        f"The child process {child.pid} {how} while it ran {what}.{why}",
        pid=child.pid,
        exitcode=status,
    )


def _describe(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name} (signal {-status})"
    except ValueError:
        return f"was killed by signal {-status}"
