"""One call, anywhere: inline, on a thread, in a process, or on a fleet of workers behind NATS.

Names are imported when they are first asked for: ``import genro_nats`` costs
next to nothing, and a program pays only for the kinds of pools it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genro_nats.codec.datatypes import data_type
    from genro_nats.config import ConfigSource, PoolOptions
    from genro_nats.errors import (
        CallTimeoutError,
        CodecError,
        ConfigurationError,
        ConnectionLostError,
        DecodeError,
        ExecutorClosedError,
        ExecutorError,
        ExecutorOverloadError,
        FunctionNotFoundError,
        MemoryLimitError,
        NotAllowedError,
        NoWorkersError,
        PayloadLostError,
        PayloadTooLargeError,
        PythonVersionError,
        RemoteError,
        RemoteTraceback,
        Retry,
        SignatureError,
        TaskCancelledError,
        TaskError,
        TaskFailedError,
        TaskNotFoundError,
        TransportError,
        WorkerLostError,
    )
    from genro_nats.executor.async_ import AsyncExecutor
    from genro_nats.executor.base import BaseExecutor
    from genro_nats.executor.function import CoroutineFunction, Function
    from genro_nats.executor.inline import InlineExecutor
    from genro_nats.executor.map import Mapped
    from genro_nats.executor.nats import NatsExecutor
    from genro_nats.executor.process import AsyncProcessExecutor, LocalExecutor, ProcessExecutor
    from genro_nats.executor.registry import ExecutorRegistry
    from genro_nats.executor.stream import Stream
    from genro_nats.executor.task_manager import SubmittedTask, TaskManager
    from genro_nats.executor.thread import ThreadExecutor
    from genro_nats.message import CallContext, CallOptions, ProgressUpdate, current_call
    from genro_nats.tasks.backend import DeadLetter
    from genro_nats.tasks.handle import ScheduleHandle, TaskHandle
    from genro_nats.tasks.options import Priority, TaskOptions
    from genro_nats.tasks.schedule import Schedule, ScheduleSpec
    from genro_nats.tasks.status import TaskState, TaskStatus

    __version__: str

__all__ = [
    "AsyncExecutor",
    "AsyncProcessExecutor",
    "BaseExecutor",
    "CallContext",
    "CallOptions",
    "CallTimeoutError",
    "CodecError",
    "ConfigSource",
    "ConfigurationError",
    "ConnectionLostError",
    "CoroutineFunction",
    "DeadLetter",
    "DecodeError",
    "ExecutorClosedError",
    "ExecutorError",
    "ExecutorOverloadError",
    "ExecutorRegistry",
    "Function",
    "FunctionNotFoundError",
    "InlineExecutor",
    "LocalExecutor",
    "Mapped",
    "MemoryLimitError",
    "NatsExecutor",
    "NoWorkersError",
    "NotAllowedError",
    "PayloadLostError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PoolOptions",
    "Priority",
    "ProcessExecutor",
    "ProgressUpdate",
    "PythonVersionError",
    "RemoteError",
    "RemoteTraceback",
    "Retry",
    "Schedule",
    "ScheduleHandle",
    "ScheduleSpec",
    "SignatureError",
    "Stream",
    "SubmittedTask",
    "TaskCancelledError",
    "TaskError",
    "TaskFailedError",
    "TaskHandle",
    "TaskManager",
    "TaskNotFoundError",
    "TaskOptions",
    "TaskState",
    "TaskStatus",
    "ThreadExecutor",
    "TransportError",
    "WorkerLostError",
    "__version__",
    "current_call",
    "data_type",
]

_ROOMS = {
    "codec.datatypes": ("data_type",),
    "config": ("ConfigSource", "PoolOptions"),
    "executor.async_": ("AsyncExecutor",),
    "executor.base": ("BaseExecutor",),
    "executor.function": ("CoroutineFunction", "Function"),
    "executor.inline": ("InlineExecutor",),
    "executor.map": ("Mapped",),
    "executor.nats": ("NatsExecutor",),
    "executor.process": ("AsyncProcessExecutor", "LocalExecutor", "ProcessExecutor"),
    "executor.registry": ("ExecutorRegistry",),
    "executor.stream": ("Stream",),
    "executor.task_manager": ("SubmittedTask", "TaskManager"),
    "executor.thread": ("ThreadExecutor",),
    "tasks.backend": ("DeadLetter",),
    "tasks.handle": ("ScheduleHandle", "TaskHandle"),
    "tasks.options": ("Priority", "TaskOptions"),
    "tasks.schedule": ("Schedule", "ScheduleSpec"),
    "tasks.status": ("TaskState", "TaskStatus"),
    "message": ("CallContext", "CallOptions", "ProgressUpdate", "current_call"),
}
_MODULES = {name: module for module, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in __all__:
        from importlib import import_module

        value = getattr(import_module(f"genro_nats.{_MODULES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    """The version; "0+unknown" for a copy of the package that was not installed, and so has no metadata."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("genro-nats")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
