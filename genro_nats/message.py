"""What a call is: its identity, its options, and what a running function can ask about it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Literal

from genro_nats.errors import ConfigurationError

__all__ = [
    "Call",
    "CallContext",
    "CallOptions",
    "ProgressUpdate",
    "TaskRun",
    "current_call",
    "in_child",
    "mark_child",
    "new_id",
]

_YEAR: Final = 365 * 86_400  # seconds: what a pool may state as its default, too
STREAM_WINDOW: Final = 16  # items of a stream sent and not yet taken, at most
PROGRESS_INTERVAL: Final = 0.1  # seconds between two messages: at most ten a second
_CHILD_VARIABLE: Final = "GENRO_NATS_CHILD"


def new_id() -> bytes:
    """A new call id: 16 random bytes."""
    return os.urandom(16)


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """How far a call is: ``fraction`` from 0 to 1, a text, and any small value."""

    fraction: float
    text: str = ""
    data: Any = None


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call, over those of its pool.

    ``timeout``: seconds from submitting to the reply; None: the pool's own.
    ``on_progress``: called with each ProgressUpdate, in the caller's event loop.
    ``by``: send the function by "name" or by "value"; None: as the pool does.

    Raises:
        ConfigurationError: a timeout that is no number of seconds above 0, or no such ``by``.
    """

    timeout: float | None = None
    on_progress: Callable[[ProgressUpdate], object] | None = None
    by: Literal["name", "value"] | None = None

    def __post_init__(self) -> None:
        if self.by not in (None, "name", "value"):
            raise ConfigurationError(f"by={self.by!r}: give 'name' or 'value'", option="by")
        given = self.timeout
        if given is None:
            return
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= _YEAR:
            raise ConfigurationError(
                f"timeout={given!r}: give seconds above 0, at most {_YEAR:,} (365 days), or leave it out for no "
                "deadline",
                option="timeout",
            )


class Call:
    """One submitted call, as it goes from the public API to the engine that runs it.

    ``timeout``: seconds left, the pool's default already applied; None: no deadline. ``stated``:
    the seconds it was given at first, which errors name. ``trace_id``: "" when the call begins
    its own trace. ``carried``: context variables to set where it runs, as ("module:attribute",
    value). ``packed``: the pickled arguments, in place of the arguments themselves. ``task``: set
    where the call is an attempt of a task. ``by``: how the function is sent, see ``CallOptions``.
    """

    __slots__ = (
        "args",
        "by",
        "carried",
        "function",
        "id",
        "kwargs",
        "on_progress",
        "packed",
        "pool",
        "stated",
        "task",
        "timeout",
        "trace_id",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        pool: str = "",
        timeout: float | None = None,
        trace_id: str = "",
        on_progress: Callable[[ProgressUpdate], object] | None = None,
        carried: Sequence[tuple[str, Any]] = (),
        by: Literal["name", "value"] | None = None,
    ) -> None:
        self.id = new_id()
        self.by = by
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.pool = pool
        self.timeout = self.stated = timeout
        self.trace_id = trace_id
        self.on_progress = on_progress
        self.carried = carried
        self.packed: tuple[bytes, list[Any]] | None = None
        self.task: TaskRun | None = None

    def again(self) -> Call:
        """The same call with an id of its own."""
        call = Call(
            self.function,
            self.args,
            self.kwargs,
            pool=self.pool,
            timeout=self.timeout,
            trace_id=self.trace_id,
            on_progress=self.on_progress,
            carried=self.carried,
            by=self.by,
        )
        call.packed = self.packed
        return call

    def drop_arguments(self) -> None:
        """Hold no more what it will not be called with again."""
        self.args, self.kwargs, self.carried, self.packed = (), {}, (), None


class TaskRun:
    """One attempt of a task, shared by who keeps the task and who runs the call. Thread-safe.

    ``id``: the task's. ``attempt``: from 1, reruns after a death included. ``checkpointed``: the
    pickle of what an earlier attempt left; None: nothing. ``on_checkpoint`` is given the pickle of
    what this one leaves, ``on_start`` the pid of the process that begins it.
    ``failure``: what a child says of the exception that ended it (``types``, ``retry``).
    """

    __slots__ = (
        "_asked",
        "_listener",
        "attempt",
        "checkpointed",
        "failure",
        "id",
        "on_checkpoint",
        "on_start",
    )

    def __init__(
        self,
        id: str,
        attempt: int,
        *,
        checkpointed: bytes | None = None,
        on_checkpoint: Callable[[bytes], object] = lambda pickled: None,
        on_start: Callable[[int], object] = lambda pid: None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.checkpointed = checkpointed
        self.on_checkpoint = on_checkpoint
        self.on_start = on_start
        self.failure: dict[str, Any] = {}
        self._asked = False
        self._listener: Callable[[], object] | None = None

    def ask(self) -> None:
        """Ask the function to end: its ``current_call().cancelled`` turns true."""
        self._asked = True
        if self._listener is not None:
            self._listener()

    def when_asked(self, listener: Callable[[], object]) -> None:
        """Call ``listener()`` once the function is asked to end; at once if it has been."""
        self._listener = listener
        if self._asked:
            listener()


class CallContext:
    """The running call, as its function sees it: ``current_call()``.

    ``id``: hex, the same wherever the call is looked at; a good idempotency key.
    ``trace_id``: hex, shared by a call and the calls made inside it.
    ``pool``: name of the pool; ``address``: the subject it serves, if any.
    ``function``: "module:qualname". ``attempt``: 1 for the first run.
    ``checkpointed``: what an earlier attempt of this task gave to ``checkpoint``; None: nothing.
    """

    __slots__ = (
        "_cancelled",
        "_complete",
        "_deadline",
        "_look",
        "_on_checkpoint",
        "_on_progress",
        "_sent_at",
        "_unsent",
        "address",
        "attempt",
        "checkpointed",
        "function",
        "id",
        "pool",
        "trace_id",
    )

    def __init__(
        self,
        id: str,
        *,
        trace_id: str = "",
        pool: str = "",
        address: str = "",
        function: str = "",
        attempt: int = 1,
        seconds: float = inf,
        on_progress: Callable[[ProgressUpdate], object] | None = None,
        on_checkpoint: Callable[[Any], object] | None = None,
        checkpointed: Any = None,
        look: Callable[[], object] | None = None,
    ) -> None:
        self.id = id
        self.trace_id = trace_id or id
        self.checkpointed = checkpointed
        self._on_checkpoint = on_checkpoint
        self._look = look
        self._unsent: ProgressUpdate | None = None
        self.pool = pool
        self.address = address
        self.function = function
        self.attempt = attempt
        self._deadline = time.monotonic() + seconds if seconds != inf else inf
        self._on_progress = on_progress
        self._sent_at = -inf
        self._complete = False
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """True once the caller gave up: a function that checks it can stop early."""
        if self._look is not None and not self._cancelled:
            self._look()
        return self._cancelled

    def cancel(self) -> None:
        """Make ``cancelled`` true (for executors)."""
        self._cancelled = True

    @property
    def remaining(self) -> float:
        """Seconds to the deadline; ``inf`` without one, never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def progress(self, fraction: float, text: str = "", data: Any = None) -> None:
        """Tell the caller how far this call is (0 to 1).

        At most ten messages a second are sent; the first 1.0 and the last one are, in any case.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress is a fraction from 0 to 1, not {fraction!r}")
        if self._on_progress is None:
            return
        now = time.monotonic()
        completed = fraction == 1.0 and not self._complete
        if completed or now - self._sent_at >= PROGRESS_INTERVAL:
            self._sent_at = now
            self._complete = self._complete or completed
            self._unsent = None
            self._on_progress(ProgressUpdate(fraction, text, data))
        else:
            self._unsent = ProgressUpdate(fraction, text, data)

    def flush_progress(self) -> None:
        """Send the last progress, if it was held back (for executors, when the function has ended)."""
        unsent, self._unsent = self._unsent, None
        if unsent is not None and self._on_progress is not None:
            self._on_progress(unsent)

    def checkpoint(self, value: Any) -> None:
        """Keep ``value`` for the next attempt of this task, which finds it in ``checkpointed``.

        The last one counts. In a call that is no task it is kept nowhere.
        """
        if self._on_checkpoint is not None:
            self._on_checkpoint(value)


running_call: Final[ContextVar[CallContext | None]] = ContextVar("genro_nats_running_call", default=None)


def current_call() -> CallContext:
    """The call that runs here. Outside of any call, one that belongs to nobody and reports to nobody."""
    return running_call.get() or CallContext(new_id().hex())


def mark_child() -> None:
    """Say that this process is a pool's child: no pool starts children of its own here."""
    os.environ[_CHILD_VARIABLE] = str(os.getpid())


def in_child() -> bool:
    """Is this process a pool's child? The pid keeps the mark from a child's own subprocesses."""
    return os.environ.get(_CHILD_VARIABLE) == str(os.getpid())
