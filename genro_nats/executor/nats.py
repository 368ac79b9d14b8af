"""Kind ``nats``: calls run on a fleet of workers behind NATS."""

from __future__ import annotations

from genro_nats.executor.engine import Engine
from genro_nats.executor.home import Home
from genro_nats.executor.homed import HomedExecutor
from genro_nats.executor.homed_tasks import HomedTasks
from genro_nats.message import CallContext
from genro_nats.tasks.backend import TaskBackend

__all__ = ["NatsExecutor"]


class NatsExecutor(HomedExecutor):
    """Sends each call to one of the workers that serve ``prefix`` + ``subject``."""

    kind = "nats"
    _user: str | None = None

    @property
    def address(self) -> str:
        """Prefix and subject: what a pool is to its workers, whatever its name here."""
        return f"{self.options.prefix}.{self.options.subject}"

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise: a fleet has any size."""
        return 64

    def _is_inside(self, context: CallContext) -> bool:
        return context.address == self.address

    @property
    def durable(self) -> bool:  # type: ignore[override]
        """Do its tasks outlive this process? They do, unless calls are run inline (bypass)."""
        return not self._bypassed

    @property
    def task_backend(self) -> TaskBackend:
        """Its tasks, kept by JetStream; in bypass mode by this process."""
        if self._bypassed:
            return super().task_backend
        return HomedTasks(self._settle, _tasks_of)

    def _task_owner(self) -> str:
        # A server's permissions can keep the outcomes of users apart by this. Not sooner: it reads a file.
        if self._user is None:
            from genro_nats.transport.identity import identity

            self._user = identity(self.options)
        return self._user + self._owner[len(self._user) :]

    def _make_engine(self) -> Engine:
        from genro_nats.executor.nats_engine import NatsEngine

        return NatsEngine(self.options, name=self.name, owner=self._task_owner())


def _tasks_of(home: Home) -> TaskBackend:
    return home.engine.tasks  # type: ignore[attr-defined, no-any-return]
