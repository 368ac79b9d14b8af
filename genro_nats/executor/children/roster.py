"""Who the children are: started, kept ready as spares, retired, killed, replaced.

The roster keeps ``plan.size`` children active and ``plan.spares`` warm beside
them. It knows nothing of queues: it tells its listener when there is capacity
and which calls were in the hands of a child that died.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from typing import Any, Final

from genro_nats.errors import ExecutorClosedError, ExecutorError
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.loss import lost_error
from genro_nats.executor.children.memory import refuse_if_tight
from genro_nats.executor.children.plan import Listener, PoolPlan
from genro_nats.executor.children.renewal import renew
from genro_nats.executor.children.spawner import Spawner
from genro_nats.transport.backoff import backoff

__all__ = ["Roster"]

log: Final = logging.getLogger("genro_nats.children")

_EXIT_NOTICE: Final = 1.0  # seconds to wait for a dead child's exit status before its calls end without it
_CLOSE_TIMEOUT: Final = 2.0  # seconds for idle children to leave
_PATIENCE: Final = 3  # failed starts in a row before calls stop waiting for a child
_BACKOFF: Final = (0.1, 10.0)  # seconds, first and last, between attempts to start a child that fails
_ENDING: Final = 0.2  # of ``max_tasks``: with so few calls left, a child's successor is made ready


class Roster:
    """The children of one pool, in one event loop."""

    def __init__(self, plan: PoolPlan, listener: Listener) -> None:
        self.plan = plan
        self.active: list[Child] = []
        self.spares: list[Child] = []
        self.leaving: set[Child] = set()
        self.lost = 0
        self._listener = listener
        self._starting = 0
        self._failures = 0
        self._hello: dict[Child, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._renewing = asyncio.Lock()
        self._old: set[Spawner] = set()  # their last children finish what they have
        self.spawner = self.new_spawner()

    @property
    def children(self) -> list[Child]:
        """All of them, whatever their state."""
        return [*self.active, *self.spares, *self.leaving, *self._hello]

    # -- start and end ------------------------------------------------------

    async def start(self) -> None:
        """Start the template and the active children; returns when they are ready.

        Raises:
            ConfigurationError, ExecutorError: an import failed, or a child could not start.
            Exception: what the initializer raised.
        """
        self._loop = asyncio.get_running_loop()
        await self.spawner.start(self.plan.start_timeout)
        starting = [asyncio.ensure_future(self.new_child()) for _ in range(self.plan.size)]
        self._starting += len(starting)
        try:
            children = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            raise
        finally:
            self._starting -= len(starting)
        # One may have ended while it waited for the others.
        self.active += [child for child in children if not child.ended]
        self.keep_full()

    async def aclose(self) -> None:
        """End all children. Who has a call in hand is killed."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        children = self.children
        for child in children:
            if child.inflight and child.pid:
                child.spawner.kill(child.pid)
            child.close()
        deadline = self._loop.time() + _CLOSE_TIMEOUT
        while (
            any(child.pid and child.exit_status is None for child in children)
            and self._loop.time() < deadline
        ):
            await asyncio.sleep(0.002)
        for spawner in (self.spawner, *self._old):
            await spawner.aclose()
        for child in children:
            child.close_tokens()

    def abandon(self) -> None:
        """Kill everything at once, for an owner whose event loop is gone."""
        self._closed = True
        for spawner in (self.spawner, *self._old):
            spawner.abandon()
        children = self.children
        if children and not self._loop.is_closed():
            for task in self._tasks:
                task.cancel()
        for child in children:
            child.close()
            child.close_tokens()

    # -- one child ----------------------------------------------------------

    async def new_child(self, spawner: Spawner | None = None) -> Child:
        """A child that has said hello, run the initializer, and lives."""
        plan, spawner = self.plan, spawner or self.spawner
        child = Child(
            plan.setup.slots,
            plan.max_tasks,
            self._listener.on_frame,
            self._on_end,
            single=plan.setup.mode == "sync",
            function_cache=plan.function_cache,
        )
        child.spawner = spawner
        theirs, tokens = child.open()
        hello = self._hello[child] = self._loop.create_future()
        try:
            async with asyncio.timeout(plan.start_timeout):
                child.pid = await spawner.spawn(plan.setup, theirs, tokens, lambda s: self._on_exit(child, s))
                theirs.close()
                await hello
                await self._initialize(child)
            refuse_if_tight(child.pid, plan.memory_limit)
            if child.ended:  # who is struck off before it joins would never be missed
                raise lost_error(child, ())
        except BaseException as error:
            self._discard(child)
            if isinstance(error, TimeoutError):
                raise ExecutorError(
                    f"A child was not ready within {plan.start_timeout:g} s (start_timeout)."
                ) from error
            raise
        finally:
            theirs.close()
            self._hello.pop(child, None)
        child.ready = True
        plan.on_event("child.ready", pid=child.pid)
        return child

    async def _initialize(self, child: Child) -> None:
        if self.plan.initializer is None:
            return
        work, outcome = self.plan.initializer()
        child.send(work)
        await outcome
        child.served = 0

    def _discard(self, child: Child) -> None:
        child.close_tokens()
        if self._loop.is_closed():
            return  # its loop ended below it: nothing here can be told any more, and the template is gone
        if child.pid and not child.ended:
            child.spawner.kill(child.pid)
        child.close()

    def hello(self, child: Child) -> None:
        """A child said that it has started."""
        hello = self._hello.get(child)
        if hello is not None and not hello.done():
            hello.set_result(None)

    def _on_end(self, child: Child) -> None:
        """The pipe closed: the child has ended or is about to."""
        self._listener.on_unstarted(child.take_back())
        child.spawner.look()  # if its template has ended, no other of its children may be sent a call
        self.replace(child)
        if child.exit_status is None:
            self.leaving.add(child)
            self._loop.call_later(_EXIT_NOTICE, self._bury, child)
        else:
            self._bury(child)

    def _on_exit(self, child: Child, status: int) -> None:
        child.exit_status = status
        if child.ended:
            self._bury(child)

    def _bury(self, child: Child) -> None:
        """Both its pipe and its process have ended, or enough time has passed since."""
        if child.buried:
            return
        child.buried = True
        self.leaving.discard(child)
        if child.exit_status is None:
            child.spawner.kill(child.pid)  # it closed its pipe and lives on
        orphans = [work for work in child.inflight.values() if not work.done]
        child.inflight = {}
        child.close_tokens()
        error = lost_error(child, orphans)
        hello = self._hello.get(child)
        if hello is not None and not hello.done():
            hello.set_exception(error)
        if orphans or not (child.retiring or self._closed):
            self.lost += 1
            self.plan.on_event("child.lost", pid=child.pid, status=child.exit_status, calls=len(orphans))
        self._listener.on_orphans(orphans, error)
        self._drop_old()

    # -- retiring and replacing ---------------------------------------------

    def retire(self, child: Child) -> None:
        """Send it no more calls; it leaves when those it has are done, and a spare takes its place."""
        if child.retiring:
            return
        child.retiring = True
        self._listener.on_unstarted(child.take_back())
        self.leaving.add(child)
        self.replace(child)
        self.let_go(child)

    def retire_soon(self, child: Child) -> None:
        """As ``retire``, once a successor is ready."""
        child.outworn = True
        self.keep_full()

    def let_go(self, child: Child) -> None:
        """End a retiring child if nobody waits for it any more."""
        if all(work.done for work in child.inflight.values()):
            if child.inflight:
                child.spawner.kill(child.pid)
            child.close()

    def kill(self, child: Child) -> None:
        """End it now, whatever it does; a spare takes its place."""
        if child.ended or child.exit_status is not None:
            return
        child.retiring = True
        child.spawner.kill(child.pid)
        self.leaving.add(child)
        self.replace(child)

    def replace(self, child: Child) -> None:
        """Strike it off, and fill its place."""
        for group in (self.active, self.spares):
            with suppress(ValueError):
                group.remove(child)
        self.keep_full()

    def keep_full(self) -> None:
        """Promote spares, and start what is missing."""
        if self._closed:
            return
        while self.spares and len(self.active) < self.plan.size:
            self.active.append(self.spares.pop())
        outworn = next((child for child in self.active if child.outworn), None)
        if self.spares and outworn is not None:
            self.retire(outworn)  # and so back to here
            return
        wanted = self.plan.size + self.plan.spares + sum(map(self._ends_soon, self.active))
        missing = wanted - len(self.active) - len(self.spares) - self._starting
        for _ in range(missing):
            self._starting += 1
            self._background(self._add_child())
        self._listener.on_capacity()

    def _ends_soon(self, child: Child) -> bool:
        """Is its successor to be made ready?"""
        limit = self.plan.max_tasks
        return child.outworn or (limit is not None and limit - child.served <= max(1, int(_ENDING * limit)))

    def served(self, child: Child) -> None:
        """A child has ended a call: it may be one of its last."""
        limit = self.plan.max_tasks
        if limit is not None and limit - child.served == max(1, int(_ENDING * limit)):
            self.keep_full()

    def _background(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add_child(self) -> None:
        try:
            child = await self.new_child_at_last()
        finally:
            self._starting -= 1
        if child.spawner is self.spawner:
            self.spares.append(child)
        else:  # it was begun with code that has been replaced meanwhile
            self.leaving.add(child)
            self.let_go(child)
        self.keep_full()

    async def new_child_at_last(self) -> Child:
        while True:
            try:
                child = await self.new_child()
            except ExecutorClosedError:
                raise
            except Exception as error:
                log.error("pool %s: a child can't be started: %s", self.plan.name, error)
                self.plan.on_event("child.failed", error=str(error), failures=self._failures + 1)
                if not self.active and self._failures >= _PATIENCE:
                    self._listener.on_starved(error)
                await asyncio.sleep(backoff(self._failures, *_BACKOFF))
                self._failures += 1
            else:
                self._failures = 0
                return child

    # -- the template -------------------------------------------------------

    async def renew(self) -> None:
        """Replace all children, see ``renewal.py``. Asked while that goes on, it is done again after it."""
        async with self._renewing:
            await renew(self)
        self.plan.on_event("children.renewed", pool=self.plan.name, children=len(self.active))

    def follow(self, fresh: Spawner) -> None:
        """From now on children come from this one; the last one ends with its children."""
        self._old.add(self.spawner)
        self.spawner = fresh

    def _drop_old(self) -> None:
        used = {child.spawner for child in self.children}
        for spawner in self._old - used:
            self._old.discard(spawner)
            self._background(spawner.aclose())

    def new_spawner(self) -> Spawner:
        """A template process, not started yet."""
        spawner = Spawner(self.plan.imports, self.plan.hints, lambda: self._spawner_lost(spawner))
        return spawner

    def _spawner_lost(self, spawner: Spawner) -> None:
        if self._closed:
            return
        if sys.platform == "linux":  # elsewhere they live on
            for child in self.children:
                child.dying = child.dying or child.spawner is spawner
        if spawner is not self.spawner:
            return
        log.error("pool %s: the template process ended; starting another", self.plan.name)
        self.plan.on_event("template.lost")
        self.spawner = self.new_spawner()
        self._background(self._restart_spawner())

    async def _restart_spawner(self) -> None:
        for attempt in range(1 << 30):
            spawner = self.spawner
            try:
                await spawner.start(self.plan.start_timeout)
                return
            except (ExecutorError, OSError) as error:
                log.error("pool %s: the template process can't be started: %s", self.plan.name, error)
                self._listener.on_starved(error)
            await asyncio.sleep(backoff(attempt, *_BACKOFF))
            if self.spawner is not spawner:
                return
            self.spawner = self.new_spawner()
