"""The pool of a Function that was unpickled where no such pool is known."""

from __future__ import annotations

from typing import Any, NoReturn

from genro_nats.errors import ExecutorError
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.pool import Pool
from genro_nats.message import Call, CallContext
from genro_nats.tasks.backend import TaskBackend

__all__ = ["DetachedExecutor"]


class DetachedExecutor(Pool):
    """Runs calls made inside the pool of its name (there they run inline), and no others."""

    kind = "detached"

    def __init__(self, name: str, address: str = "") -> None:
        super().__init__(name)
        self._address = address

    @property
    def address(self) -> str:
        """The address of the pool it stands for: a worker knows that, not the caller's name for it."""
        return self._address

    def _is_inside(self, context: CallContext) -> bool:
        return context.address == self._address if self._address else context.pool == self.name

    @property
    def task_backend(self) -> TaskBackend:
        """None: its tasks are kept by the process that knows the pool."""
        self._unknown()

    async def _run(self, call: Call) -> Any:
        self._unknown()

    async def _source(self, call: Call) -> StreamSource:
        self._unknown()

    def _unknown(self) -> NoReturn:
        raise ExecutorError(
            f"The pool {self.name!r} is not known in this process, so its function can only be called inside "
            f"calls of that pool. Decorate it at the top of an importable module, or use .local().",
            executor=self.name,
        )
