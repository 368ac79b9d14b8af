"""Every error genro-nats raises, as one tree.

::

    ExecutorError
    ├── ConfigurationError (also ValueError)     a wrong option, name, file or address
    │   ├── StreamMismatchError                  a stream or consumer has other settings
    │   └── ServerTooOldError                    the NATS server lacks a feature
    ├── ExecutorOverloadError                    max_pending reached, or every worker is full
    ├── ExecutorClosedError                      the pool was shut down
    ├── NoWorkersError                           nobody serves the subject
    ├── WorkerLostError                          the child or worker running the call died
    │   └── MemoryLimitError                     the child was ended: it held too much memory
    ├── CallTimeoutError (also TimeoutError)     the deadline passed
    ├── RemoteError                              the user's exception could not be rebuilt here
    ├── CodecError
    │   ├── SignatureError                       unsigned, wrongly signed or replayed
    │   ├── DecodeError                          bytes that are not a frame, or of another version
    │   │   └── NotAllowedError                  what who takes only data or registered functions refuses
    │   ├── PayloadTooLargeError                 over a stated limit
    │   ├── FunctionNotFoundError                the function is not importable over there
    │   └── PythonVersionError                   a function by value, from another minor version of Python
    ├── TransportError
    │   ├── ConnectionLostError                  the server stayed away too long
    │   ├── PermissionDeniedError (also PermissionError)  the server forbids it to this user
    │   ├── StreamUnavailableError               a stream did not answer
    │   └── StreamError                          a stream refused what was asked
    │       ├── SequenceConflictError            somebody else wrote the subject first
    │       └── DeliveryForgottenError           a crashed server no longer knows the delivery
    └── TaskError
        ├── TaskNotFoundError
        ├── TaskFailedError
        ├── PayloadLostError                     stored arguments or a result are gone
        ├── TaskCancelledError
        └── Retry                                raised by a task's function: try me again later

Each error carries its facts as attributes (``error.fields``) and says in
``error.retryable`` whether the same call, made again later, can succeed
without anybody changing code or configuration.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar, Final

__all__ = [
    "CallTimeoutError",
    "CodecError",
    "ConfigurationError",
    "ConnectionLostError",
    "DecodeError",
    "DeliveryForgottenError",
    "ExecutorClosedError",
    "ExecutorError",
    "ExecutorOverloadError",
    "FunctionNotFoundError",
    "MemoryLimitError",
    "NoWorkersError",
    "NotAllowedError",
    "PayloadLostError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PythonVersionError",
    "RemoteError",
    "RemoteTraceback",
    "Retry",
    "SequenceConflictError",
    "ServerTooOldError",
    "SignatureError",
    "StreamError",
    "StreamMismatchError",
    "StreamUnavailableError",
    "TaskCancelledError",
    "TaskError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TransportError",
    "WorkerLostError",
]


_LARGEST: Final = sys.float_info.max


class ExecutorError(Exception):
    """Root of the tree: ``except ExecutorError`` catches all that is ours.

    ``fields`` holds the facts of the error by name; each is an attribute too.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are no ordinary attribute; a half-built
        # instance (pickle, copy) has no `fields` yet.
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.fields), None


def _rebuild(cls: type[ExecutorError], args: tuple[Any, ...], fields: dict[str, Any]) -> ExecutorError:
    return cls(*args, **fields)


class ConfigurationError(ExecutorError, ValueError):
    """A wrong option, name, file or address; the text names it and the way out."""


class StreamMismatchError(ConfigurationError):
    """A stream or consumer of that name exists with other settings.

    Fields: ``name``, ``wanted`` and ``found`` (the settings that differ, by name).
    """


class ServerTooOldError(ConfigurationError):
    """The NATS server lacks a feature. Fields: ``feature``, ``needed`` and ``found`` (versions)."""


class ExecutorOverloadError(ExecutorError):
    """``max_pending`` calls are already accepted and unanswered, or all workers are full.

    Fields: ``executor`` (pool name), ``max_pending`` (calls), ``retry_after`` (seconds).
    """

    retryable = True


class ExecutorClosedError(ExecutorError):
    """The pool was shut down before or while the call waited. Fields: ``executor``."""


class NoWorkersError(ExecutorError):
    """No worker subscribes to the pool's subject. Fields: ``executor``, ``subject``."""

    retryable = True


class WorkerLostError(ExecutorError):
    """The child or worker that ran the call died or fell silent; the call may have run.

    Fields, where known: ``pid``, ``exitcode`` (negative: the signal's number), ``worker``.
    """


class MemoryLimitError(WorkerLostError):
    """The child that ran the call was ended because it held too much memory; the call may have had effects.

    Fields: ``limit`` and ``used`` (bytes), ``pid``, ``exitcode``.
    """


class CallTimeoutError(ExecutorError, TimeoutError):
    """The call's deadline passed. Fields: ``timeout`` (seconds), ``function``."""


class RemoteError(ExecutorError):
    """A user's exception that could not be rebuilt in this process.

    Fields: ``type_name`` (``module:qualname`` over there), ``text`` (its ``str``),
    ``traceback`` (formatted over there).
    """


class RemoteTraceback(Exception):
    """The traceback of another process, as the ``__cause__`` of the user's exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text.rstrip()}\n"


class CodecError(ExecutorError):
    """A value, function or message that can't be turned into bytes or back."""


class SignatureError(CodecError):
    """A message that is unsigned, wrongly signed, too old or a replay.

    Fields: ``reason``: unsigned, unknown key, wrong signature, too old, replayed, or no key (here).
    """


class DecodeError(CodecError):
    """Bytes that are not a frame of this protocol, or of a version not spoken here."""


class NotAllowedError(DecodeError):
    """Refused by a side that takes data only, or runs registered functions only.

    Fields: ``reason`` (``pickle``, ``by_value``, ``by_digest``, ``function``, ``context``, ``type``),
    and ``function``, where known.
    """


class PayloadTooLargeError(CodecError):
    """A payload over a limit. Fields: ``size`` and ``limit`` (bytes)."""


class FunctionNotFoundError(CodecError):
    """The function's module or name does not exist where it should run. Fields: ``function``."""


class PythonVersionError(CodecError):
    """A function sent by value, from a Python of another minor version than the worker's.

    Fields: ``function``, ``caller`` and ``worker`` (versions, such as "3.12").
    """


class TransportError(ExecutorError):
    """The messaging server or a socket failed."""

    retryable = True


class ConnectionLostError(TransportError):
    """The server could not be reached, or stayed away too long. Fields: ``url`` (no secrets)."""


class PermissionDeniedError(TransportError, PermissionError):
    """The server does not allow this user to do that.

    Fields: ``operation`` (publish or subscribe) and ``subject``.
    """

    retryable = False


class StreamUnavailableError(TransportError):
    """A stream, or the leader of its replicas, did not answer in time.

    Fields: ``subject``, and ``silent``: True where nothing at all was answered.
    """


class StreamError(TransportError):
    """A stream refused what was asked. Fields: ``code`` (the server's err_code), ``subject``."""

    retryable = False


class SequenceConflictError(StreamError):
    """The subject's last message is not the expected one: somebody else wrote it first."""


class DeliveryForgottenError(StreamError):
    """A server that crashed no longer knows that it delivered this message.

    Unless an acknowledgement reached it before, the message comes again.
    """


class TaskError(ExecutorError):
    """Root of what concerns durable tasks. Fields: ``task_id``."""


class TaskNotFoundError(TaskError):
    """No task of that id is known (any more)."""


class TaskFailedError(TaskError):
    """A task ended for a reason that is not the user's exception. Fields: ``reason``."""


class PayloadLostError(TaskError):
    """Arguments or a result of a task that were stored apart from it are not there (any more).

    Fields: ``blob`` (its id: user and number in hex), ``chunk`` (the number of the missing one).
    """


class TaskCancelledError(TaskError):
    """The task was cancelled before it completed."""


class Retry(TaskError):
    """Raise it in a task's function to be tried again after ``delay`` seconds, as far as ``retries`` allow.

    Raises:
        ConfigurationError: a delay that is no number of seconds from 0 on.
    """

    def __init__(self, message: str = "", *, delay: float = 0.0, **fields: Any) -> None:
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= _LARGEST:
            raise ConfigurationError(
                f"Retry(delay={delay!r}): give seconds from 0 on, such as delay=30 "
                "(of a timedelta: its total_seconds())",
                option="delay",
            )
        super().__init__(message or f"asked to be tried again after {delay:g} s", delay=delay, **fields)
