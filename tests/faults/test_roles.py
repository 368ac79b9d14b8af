"""Each role may do what it is for, and nothing else: on a real server with the generated configuration."""

from __future__ import annotations

import asyncio
import json
import math
import operator
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from genro_nats import (
    CallTimeoutError,
    ConnectionLostError,
    ExecutorError,
    NatsExecutor,
    PermissionDeniedError,
    PoolOptions,
    TaskHandle,
    TaskState,
)
from genro_nats.cli.main import main
from genro_nats.codec.blob import BlobId, blob_id
from genro_nats.testing import WorkerFactory
from genro_nats.transport.address import Address
from genro_nats.transport.denials import Denied
from genro_nats.transport.direct import get_last
from genro_nats.transport.identity import identity_of
from genro_nats.transport.nats import Connection
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.subjects import QUEUE_GROUP, TaskSubjects
from tests.faults import task_jobs
from tests.faults.conftest import Notes, until
from tests.secured import SecuredServer
from tests.transport.identities import Authority

pytestmark = pytest.mark.anyio
AT_ONCE = 4.0  # seconds; every timeout that a denial could be taken for is longer
USERS = ("--caller", "web", "--caller", "batch")
LARGE = 3_000_000  # bytes, over inline_limit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """One with a pool that a worker serves ("jobs"), and one that nobody ever used ("idle")."""
    directory = tmp_path_factory.mktemp("roles")
    with SecuredServer(directory, "--subject", "jobs", "--subject", "idle", *USERS) as server:
        factory = WorkerFactory(server.options("worker"))
        factory("jobs", max_workers=2, spares=1)
        yield server
        factory.stop()


@asynccontextmanager
async def pool_of(
    server: SecuredServer, user: str, subject: str = "jobs", **options: Any
) -> AsyncIterator[NatsExecutor]:
    async with NatsExecutor(user, subject=subject, **server.options(user), **options) as pool:
        yield pool


async def refused(act: Any, *, operation: str = "publish") -> PermissionDeniedError:
    """The denial that ``act`` ends in, at once."""
    begin = time.monotonic()
    with pytest.raises(PermissionDeniedError) as caught:
        await act
    assert time.monotonic() - begin < AT_ONCE
    assert caught.value.operation == operation
    assert not caught.value.retryable and issubclass(type(caught.value), PermissionError)
    return caught.value


def count(number: int) -> Iterator[int]:
    yield from range(number)


# -- subject by subject ------------------------------------------------------------

# {web}, {batch}, {worker}: who they are in subjects. {T}, {S}, {D}: the pool's streams.
TASK = "sec.task.idle.now.normal.=.x"
FORBIDDEN = {
    "web": {
        "publish": """
            sec.state.idle.{web}.o.i sec.state.idle.=.=.i sec.told.idle.{web}.o.i sec.index.idle.failed.{web}.o.i
            sec.note.idle.progress.{web}.o.i sec.note.idle.checkpoint.{web}.o.i sec.dead.idle.i
            sec.reply.{web}.c.i sec.reply.{batch}.c.i sec.api.{batch}.c.1 sec.bulk.{batch}.x.owner
            sec.bulk.{batch}.x.i sec.ask.idle.cancel.{batch}.o.i sec.ask.idle.forget.{batch}.o.i
            sec.presence.beat.w sec.presence.ask sec.worker.w.drain sec.peers.idle sec.peers.idle.b sec.pull.w.n.wait.0
            sec.call.other sec.control.other sec.task.other.now.normal.=.x sec.schedule.other.n other.call.idle
            $JS.API.INFO $JS.API.STREAM.LIST $JS.API.STREAM.NAMES $JS.API.STREAM.INFO.foreign
            $JS.API.STREAM.CREATE.{T} $JS.API.STREAM.UPDATE.{T} $JS.API.STREAM.DELETE.{T} $JS.API.STREAM.PURGE.{T}
            $JS.API.STREAM.PURGE.{S} $JS.API.STREAM.PURGE.{D} $JS.API.STREAM.MSG.GET.{S} $JS.API.STREAM.MSG.GET.{T}
            $JS.API.STREAM.MSG.DELETE.{T} $JS.API.CONSUMER.CREATE.{T}.high $JS.API.CONSUMER.CREATE.{S}.mine
            $JS.API.CONSUMER.DELETE.{T}.high $JS.API.CONSUMER.MSG.NEXT.{T}.high $JS.ACK.{T}.high.1.1.1.1.1
            $JS.API.DIRECT.GET.{S} $JS.API.DIRECT.GET.{D} $JS.API.DIRECT.GET.{D}.sec.dead.idle.i
            $JS.API.DIRECT.GET.{S}.sec.state.idle.{batch}.o.i $JS.API.DIRECT.GET.{S}.sec.state.idle.>
            $JS.API.DIRECT.GET.{S}.sec.state.idle.*.*.* $JS.API.DIRECT.GET.{S}.sec.note.idle.progress.{batch}.o.i
            $JS.API.DIRECT.GET.{S}.sec.index.idle.failed.{batch}.o.i $JS.API.DIRECT.GET.{S}.>
            $JS.API.STREAM.INFO.{S} $JS.API.STREAM.INFO.{B} $JS.API.STREAM.INFO.{D}
            $JS.API.DIRECT.GET.{B} $JS.API.DIRECT.GET.{B}.> $JS.API.DIRECT.GET.{B}.sec.blob.idle.>
            $JS.API.DIRECT.GET.{B}.sec.blob.idle.*.*.* $JS.API.DIRECT.GET.{B}.sec.blob.idle.*.b.0
            $JS.API.DIRECT.GET.{B}.sec.blob.idle.*.*.head $JS.API.DIRECT.GET.{B}.sec.blob.idle.{batch}.*.*
            $JS.API.DIRECT.GET.{B}.sec.blob.idle.{batch}.b.0 $JS.API.DIRECT.GET.{B}.sec.blob.idle.{batch}.b.head
            sec.blob.idle.{batch}.b.0 sec.blob.idle.{batch}.b.head sec.blob.idle.=.b.0 sec.blob.idle.=.b.head
            sec.blob.idle.b.0 sec.blob.idle.*.b.0 sec.blob.other.{web}.b.0
            $SRV.PING $SYS.REQ.SERVER.PING _INBOX.x anything
            """,
        "subscribe": """
            > *.> sec.> sec.reply.> sec.reply.*.*.* sec.reply.{batch}.*.* sec.reply.{worker}.*.* sec.api.{batch}.*.*
            sec.bulk.{batch}.*.* sec.bulk.{worker}.*.* sec.told.idle.> sec.told.idle.*.*.* sec.told.idle.{batch}.o.*
            sec.state.idle.> sec.state.idle.{web}.*.* sec.task.idle.> sec.schedule.idle.> sec.blob.idle.>
            sec.note.idle.progress.{batch}.*.* sec.note.idle.checkpoint.{web}.*.* sec.ask.idle.> sec.dead.idle.>
            sec.index.idle.> sec.call.idle sec.call.idle|workers sec.control.idle sec.worker.* sec.worker.w
            sec.pull.*.*.> sec.peers.idle sec.presence.beat.* $JS.EVENT.ADVISORY.> $JS.ACK.> $JS.API.> $SRV.> $SYS.>
            _INBOX.>
            """,
    },
    "worker": {
        "publish": """
            sec.call.idle sec.control.idle sec.task.idle.now.normal.=.x sec.schedule.idle.n
            sec.ask.idle.cancel.{web}.o.i sec.told.idle.{web}.o.i sec.worker.w.drain sec.state.other.{web}.o.i
            sec.dead.other.i $JS.API.STREAM.UPDATE.{T} $JS.API.STREAM.DELETE.{T} $JS.API.STREAM.MSG.GET.{S}
            $JS.API.STREAM.MSG.DELETE.{S} $JS.API.STREAM.PURGE.foreign $JS.API.STREAM.CREATE.foreign
            $JS.API.CONSUMER.CREATE.{S}.mine $JS.API.CONSUMER.DELETE.{T}.high $JS.API.CONSUMER.MSG.NEXT.foreign.high
            $JS.API.STREAM.LIST $JS.ACK.foreign.high.1.1.1.1.1 sec.api.{web}.c.1 $SRV.PING $SYS.REQ.SERVER.PING
            _INBOX.x anything
            """,
        "subscribe": """
            > sec.> sec.call.idle sec.call.idle|snoop sec.call.other|workers sec.call.>|workers sec.control.other
            sec.reply.> sec.reply.{web}.*.* sec.reply.{worker}.*.* sec.api.{web}.*.* sec.bulk.{web}.*.*
            sec.told.idle.> sec.state.idle.> sec.task.idle.> sec.ask.other.> sec.presence.beat.* $JS.EVENT.ADVISORY.>
            $JS.API.> $SYS.> _INBOX.>
            """,
    },
    "manager": {
        "publish": """
            sec.call.idle sec.control.idle sec.worker.w sec.reply.{web}.c.i sec.bulk.{worker}.x.owner
            sec.state.idle.{web}.o.i sec.told.idle.{web}.o.i sec.note.idle.progress.{web}.o.i sec.dead.idle.i
            sec.presence.beat.w sec.task.other.now.normal.=.x sec.task.idle.later.normal.=.x
            sec.schedule.idle.n sec.blob.idle.{web}.b.1 sec.blob.other.{web}.b.head
            $JS.API.STREAM.DELETE.{T} $JS.API.STREAM.PURGE.foreign
            $JS.API.CONSUMER.MSG.NEXT.{T}.high $JS.ACK.{T}.high.1.1.1.1.1 $SYS.REQ.SERVER.PING anything
            """,
        "subscribe": """
            > sec.> sec.call.idle sec.call.idle|workers sec.reply.{web}.*.* sec.bulk.{web}.*.* sec.api.{web}.*.*
            sec.task.idle.> sec.worker.* sec.ask.idle.> $SYS.> _INBOX.>
            """,
    },
    "observer": {
        "publish": """
            sec.call.idle sec.control.idle sec.task.idle.now.normal.=.x sec.task.idle.later.normal.=.x
            sec.schedule.idle.n sec.ask.idle.cancel.{web}.o.i sec.ask.idle.cancel.=.=.i sec.state.idle.{web}.o.i
            sec.told.idle.{web}.o.i sec.dead.idle.i sec.note.idle.progress.{web}.o.i sec.blob.idle.{web}.b.1
            sec.blob.idle.{web}.b.head sec.reply.{web}.c.i sec.bulk.{worker}.x.owner sec.worker.w sec.worker.w.drain
            sec.presence.beat.w
            $JS.API.STREAM.CREATE.{T} $JS.API.STREAM.UPDATE.{T} $JS.API.STREAM.PURGE.{T} $JS.API.STREAM.PURGE.{D}
            $JS.API.STREAM.DELETE.{T} $JS.API.STREAM.MSG.DELETE.{T} $JS.API.CONSUMER.CREATE.{T}.high
            $JS.API.CONSUMER.MSG.NEXT.{T}.high $JS.ACK.{T}.high.1.1.1.1.1 $SYS.REQ.SERVER.PING anything
            """,
        "subscribe": """
            > sec.> sec.call.idle sec.call.idle|workers sec.reply.{web}.*.* sec.api.{web}.*.* sec.bulk.{web}.*.*
            sec.task.idle.> sec.worker.* sec.ask.idle.> sec.control.idle $SYS.> _INBOX.>
            """,
    },
}
# Those that the suites of calls and tasks do not use as these users.
ALLOWED = {
    "web": {
        "publish": "sec.call.idle sec.ask.idle.cancel.{web}.o.i sec.ask.idle.forget.=.=.i sec.worker.w "
        "sec.blob.idle.{web}.b.1 sec.blob.idle.{web}.b.head $JS.API.DIRECT.GET.{B}.sec.blob.idle.{web}.b.1 "
        "$JS.API.DIRECT.GET.{B}.sec.blob.idle.=.b.1 $JS.API.STREAM.INFO.{T} $JS.API.CONSUMER.INFO.{T}.low",
        "subscribe": "sec.reply.{web}.c.* sec.told.idle.{web}.o.* sec.note.idle.progress.{web}.o.i",
    },
    "worker": {
        "publish": "sec.presence.beat.w sec.peers.idle sec.peers.idle.b sec.blob.idle.{web}.b.1 sec.blob.idle.=.b.1 "
        "$JS.API.DIRECT.GET.{B}.sec.blob.idle.{web}.b.1 $JS.API.STREAM.PURGE.{B} "
        "$JS.API.STREAM.MSG.DELETE.{T} $JS.API.STREAM.CREATE.{B} sec.reply.{web}.c.i sec.bulk.{web}.x.i",
        "subscribe": "sec.presence.ask sec.worker.w.drain sec.peers.idle sec.peers.idle.b $SRV.PING $SRV.*.genro-nats",
    },
    "manager": {
        "publish": "sec.worker.w.drain sec.presence.ask $SRV.PING sec.ask.idle.cancel.{web}.o.i "
        "sec.blob.idle.{web}.b.head sec.task.idle.now.normal.=.x "
        "$JS.API.STREAM.UPDATE.{T} $JS.API.STREAM.PURGE.{T} $JS.API.STREAM.CREATE.{B}",
        "subscribe": "sec.presence.beat.* sec.told.idle.> $JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
    },
    "observer": {
        "publish": "sec.presence.ask $SRV.PING $SRV.STATS.genro-nats.w $JS.API.STREAM.LIST $JS.API.CONSUMER.LIST.{T}",
        "subscribe": "sec.presence.beat.* sec.presence.beat.w sec.told.idle.> $JS.EVENT.ADVISORY.>",
    },
}
CASES = [(user, act) for user in FORBIDDEN for act in ("publish", "subscribe")]


class Trier:
    """Does one thing after the other as one user, and hears what the server says."""

    def __init__(self, server: SecuredServer, user: str) -> None:
        self._connection = Connection(
            Address(PoolOptions.build("nats", {**server.options(user), "subject": "idle"})), user
        )
        self._heard: list[Denied] = []

    async def __aenter__(self) -> Trier:
        await self._connection.start()
        self._connection.denials.listeners.append(self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.aclose()

    def _hear(self, denied: Denied) -> bool:
        self._heard.append(denied)
        return True

    async def may(self, act: str, subject: str) -> bool:
        self._heard.clear()
        if act == "publish":
            await self._connection.publish(subject, b"{}")
        else:
            where, _, queue = subject.partition("|")
            subscription = await self._connection.subscribe(where, lambda message: None, queue)
        await self._connection.flush()
        if act == "subscribe":
            await self._connection.unsubscribe(subscription)
        return not any(denied.meets(subject.partition("|")[0]) for denied in self._heard)


def listed(server: SecuredServer, text: str) -> list[str]:
    names = {user: identity_of(server.public(user)) for user in ("web", "batch", "worker")}
    streams = {
        key: f"sec-idle-{name}"
        for key, name in zip("TSDB", ("tasks", "states", "dead", "blobs"), strict=True)
    }
    return text.format(**names, **streams).split()


@pytest.mark.parametrize(("user", "act"), CASES)
async def test_what_a_user_may_not_do(server: SecuredServer, user: str, act: str) -> None:
    async with Trier(server, user) as trier:
        subjects = listed(server, FORBIDDEN[user][act])
        assert [subject for subject in subjects if await trier.may(act, subject)] == []


@pytest.mark.parametrize(("user", "act"), CASES)
async def test_what_a_user_may_do(server: SecuredServer, user: str, act: str) -> None:
    async with Trier(server, user) as trier:
        subjects = listed(server, ALLOWED[user][act])
        assert [subject for subject in subjects if not await trier.may(act, subject)] == []


def test_the_queue_group_is_the_one_that_is_tried() -> None:
    assert QUEUE_GROUP == "workers"


# -- act by act, as people meet them -------------------------------------------------


async def test_a_caller_has_its_own_results_only(server: SecuredServer) -> None:
    async with (
        pool_of(server, "web") as web,
        pool_of(server, "web") as again,
        pool_of(server, "batch") as batch,
    ):
        task = await web.enqueue(operator.add, 1, 2)
        assert await task.result(timeout=10) == 3
        assert await again.task(task.id).result(timeout=10) == 3  # the same user, another process
        other = batch.task(task.id)
        for act in (other.status(), other.result(timeout=10), other.cancel(), anext(other.watch())):
            assert "sec-jobs-states" in (await refused(act)).subject
        assert (await (await batch.enqueue(operator.add, 3, 4)).result(timeout=10)) == 7


async def test_large_payloads_of_another_caller(server: SecuredServer) -> None:
    """They are neither found nor read nor spoilt, by who knows where they are least of all."""
    async with pool_of(server, "web") as web, pool_of(server, "batch") as batch:
        task = await web(bytes).enqueue(LARGE)
        assert await task.result(timeout=10) == bytes(LARGE)
        own = await batch(bytes).enqueue(LARGE)
        assert await own.result(timeout=10) == bytes(LARGE)
        subjects, id = await stored_apart(web, task.id)
        _, mine = await stored_apart(batch, own.id)
        stream, js = subjects.blobs_stream, batch._home.engine.tasks._js  # type: ignore[union-attr]
        assert (id.user, mine.user) == tuple(identity_of(server.public(user)) for user in ("web", "batch"))
        found = await get_last(js, stream, subjects.of("blob", mine.user, "*", "head"))
        assert found is not None and found.subject == subjects.blob(mine, "head")
        for where in (
            subjects.blob(id, 0),
            subjects.blob(id, "head"),
            subjects.of("blob", id.user, "*", "*"),
            subjects.of("blob", "*", "*", "*"),
            subjects.of("blob", ">"),
        ):
            await refused(get_last(js, stream, where))
        for part in (0, "head"):
            await refused(Publisher(js, stream).publish(subjects.blob(id, part), b"", msg_id=None, ttl=1.0))
        for name in (stream, subjects.states_stream, subjects.dead_stream):
            await refused(js.api(f"STREAM.INFO.{name}", {"subjects_filter": ">"}))
        async with pool_of(server, "web") as again:
            assert await again.task(task.id).result(timeout=10) == bytes(LARGE)


async def stored_apart(pool: NatsExecutor, id: str) -> tuple[TaskSubjects, BlobId]:
    """Which stored payload a task's outcome is."""
    tasks = pool._home.engine.tasks  # type: ignore[union-attr]
    record = await tasks._store.load(id)
    assert record is not None
    return tasks._subjects, blob_id(record.outcome)


async def fails_again(
    web: NatsExecutor, manager: NatsExecutor, function: Callable[[Any], Any], value: Any, text: str
) -> TaskHandle[Any]:
    """A task that fails, is replayed by the manager, fails again and is dropped."""
    task = await web.enqueue(function, value)
    with pytest.raises(ValueError, match=text):
        await task.result(timeout=10)
    replayed = await manager.dead.replay(task.id)
    with pytest.raises(ValueError, match=text):
        await replayed.result(timeout=10)
    assert await manager.dead.drop(replayed.id)
    return task


async def test_large_payloads_that_change_hands(server: SecuredServer) -> None:
    """Ids of a caller's own, schedules, and a manager's replay: each may read what it is to read."""
    async with pool_of(server, "web") as web, pool_of(server, "manager") as manager:
        own = await web(task_jobs.sum_of).options(id="a large one").enqueue(bytes(LARGE))
        assert await own.result(timeout=10) == task_jobs.sum_of(bytes(LARGE))
        given = await web(bytes).options(id="a large result").enqueue(LARGE)
        assert await given.result(timeout=10) == bytes(LARGE)
        assert await web.task("a large result").result(timeout=10) == bytes(LARGE)
        await fails_again(web, manager, int, bytes(LARGE), "invalid literal")
        subjects = web._home.engine.tasks._subjects  # type: ignore[union-attr]
        await web(len).schedule("large", every=3600, args=(bytes(LARGE),))
        js = web._home.engine.tasks._js  # type: ignore[union-attr]
        stored = await get_last(js, subjects.tasks_stream, subjects.of("schedule", "large"))
        assert stored is not None and blob_id(stored.data).user == identity_of(server.public("web"))
        assert await manager.unschedule("large")
        assert await get_last(js, subjects.tasks_stream, stored.subject) is None


async def test_a_caller_lists_and_removes_nothing(server: SecuredServer) -> None:
    async with pool_of(server, "web") as web:
        failing = await web.enqueue(math.sqrt, -1)
        with pytest.raises(ValueError, match="math domain"):
            await failing.result(timeout=10)
        for act in (
            anext(web.tasks()),
            web.dead.list(),
            web.dead.replay(failing.id),
            web.dead.drop(failing.id),
        ):
            await refused(act)


async def test_an_observer_looks_on(server: SecuredServer) -> None:
    async with pool_of(server, "web") as web, pool_of(server, "observer") as observer:
        task = await web.enqueue(math.sqrt, -1)
        with pytest.raises(ValueError, match="math domain"):
            await task.result(timeout=10)
        assert (await observer.task(task.id).status()).state is TaskState.FAILED
        assert [status.state async for status in observer.task(task.id).watch()] == [TaskState.FAILED]
        assert task.id in [status.id async for status in observer.tasks(state="failed")]
        assert task.id in [letter.id for letter in await observer.dead.list()]
        await refused(observer.submit(abs, -1))
        await refused(observer.enqueue(abs, -1))
        await refused(observer(abs).schedule("nightly", every=60))
        await refused(observer.dead.replay(task.id))
        await refused(observer.dead.drop(task.id))


async def command(server: SecuredServer, user: str, *arguments: str) -> int:
    """The exit code of a command as this user; it does not wait for ever."""
    options = server.options(user)
    where = ("--url", options["url"], "--prefix", options["prefix"], "--nkey", options["nkey_seed_file"])
    return await asyncio.wait_for(asyncio.to_thread(main, [*arguments, *where]), 20)


async def test_the_fleet_s_commands_by_role(
    server: SecuredServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pool_of(server, "web") as web:
        await (await web.enqueue(abs, -1)).result(timeout=10)
    assert await command(server, "observer", "pools", "--json") == 0
    (pool,) = [found for found in json.loads(capsys.readouterr().out) if found["subject"] == "jobs"]
    assert (pool["workers"], pool["tasks"]) == (1, 0)  # and not None: it may ask
    assert await command(server, "observer", "drain", "--all", "--timeout", "15s") == 1
    printed = capsys.readouterr()
    assert printed.out == ""  # nobody was told to leave
    assert "does not allow this user to publish to 'sec.worker." in printed.err
    assert await command(server, "web", "workers", "--wait", "15s") == 1
    assert "does not allow this user to subscribe to 'sec.presence." in capsys.readouterr().err


async def test_an_observer_cancels_nothing_and_a_manager_does(
    server: SecuredServer, notes: Notes, tmp_path: Path
) -> None:
    async with (
        pool_of(server, "web") as web,
        pool_of(server, "observer") as observer,
        pool_of(server, "manager") as manager,
    ):
        task = await web.enqueue(time.sleep, 60)
        await until_running(task)
        await refused(observer.task(task.id).cancel())
        assert await manager.task(task.id).cancel()
        assert (await task.status()).state is TaskState.CANCELLED


async def until_running(task: Any) -> None:
    async with asyncio.timeout(10):
        while (await task.status()).state is not TaskState.RUNNING:
            await asyncio.sleep(0.01)


async def test_a_manager_sees_to_dead_letters_and_calls_nothing(server: SecuredServer) -> None:
    async with pool_of(server, "web") as web, pool_of(server, "manager") as manager:
        task = await fails_again(web, manager, math.sqrt, -1, "math domain")
        assert task.id not in [letter.id for letter in await manager.dead.list()]
        assert (await refused(manager.submit(abs, -1))).subject == "sec.call.jobs"


async def test_a_manager_removes_schedules_and_makes_none(server: SecuredServer, notes: Notes) -> None:
    async with pool_of(server, "web") as web, pool_of(server, "manager") as manager:
        await web(task_jobs.work).schedule("often", every=1, args=(notes.path, "run"))
        await web(task_jobs.work).schedule("later", every=2, args=(notes.path, "after"))
        await until(lambda: "run" in notes.lines())
        assert await manager.unschedule("often")
        assert not await manager.unschedule("often")
        assert [one.name async for one in manager.schedules()] == ["later"]
        runs = notes.lines().count("run")
        seen = notes.lines().count("after")
        async with asyncio.timeout(20):
            while notes.lines().count("after") < seen + 2:  # two seconds and more
                await asyncio.sleep(0.05)
        assert notes.lines().count("run") <= runs + 1  # one that was due already
        assert await manager.unschedule("later")
        await refused(manager(abs).schedule("nightly", every=60))


async def test_a_pool_that_nobody_served_yet(server: SecuredServer) -> None:
    async with pool_of(server, "web", "idle") as web:
        error = await refused(web.enqueue(abs, -1))
        assert "start a worker" in str(error) and error.subject == "$JS.API.STREAM.CREATE.sec-idle-tasks"


async def test_a_pool_that_the_users_are_not_bound_to(server: SecuredServer) -> None:
    async with pool_of(server, "web", "other") as web:
        assert (await refused(web.submit(abs, -1))).subject == "sec.call.other"
        await refused(web.enqueue(abs, -1))
        await refused(anext(aiter(web(count).stream(3))))


async def test_a_key_of_another_prefix(server: SecuredServer) -> None:
    options = {**server.options("web"), "prefix": "Else"}
    pool = NatsExecutor("web", subject="jobs", **options)
    error = await refused(pool.submit(abs, -1), operation="subscribe")
    assert error.subject.startswith("Else.reply.")


async def test_an_ask_for_a_role_that_is_not_its_own(server: SecuredServer) -> None:
    for user, lacks in (("web", "sec.worker."), ("observer", "sec.worker."), ("manager", "sec.worker.")):
        with pytest.raises(ExecutorError, match="did not become ready") as caught:
            WorkerFactory(server.options(user))("jobs", max_workers=1, spares=0)
        assert "PermissionDeniedError" in str(caught.value)
        assert lacks in str(caught.value) or "$JS.API.INFO" in str(caught.value)
        assert Path(server.options(user)["nkey_seed_file"]).read_text().strip() not in str(caught.value)


# -- where a configuration lacks something ---------------------------------------------


@pytest.fixture
def lacking(tmp_path: Path) -> Iterator[Callable[..., tuple[SecuredServer, WorkerFactory]]]:
    """A server whose configuration was changed, and a factory of workers."""
    begun: list[Any] = []

    def start(change: Callable[[str], str], *arguments: str) -> tuple[SecuredServer, WorkerFactory]:
        server = SecuredServer(tmp_path / "nats", *arguments, change=change)
        begun.append(server)
        factory = WorkerFactory(server.options("worker"))
        begun.append(factory)
        return server, factory

    yield start
    for one in reversed(begun):
        one.stop()


def without(pattern: str) -> Callable[[str], str]:
    """The configuration less the first line with that."""

    def change(text: str) -> str:
        found = re.search(rf'.*"{pattern}".*\n', text)
        assert found is not None, pattern
        return text.replace(found[0], "", 1)

    return change


async def test_large_payloads_that_may_not_be_pulled(lacking: Any) -> None:
    server, factory = lacking(without(r"sec\.bulk\.[0-9a-f]{8}\.\*\.\*"))  # the caller's words to workers
    factory("jobs", max_workers=1, spares=0)
    async with pool_of(server, "caller") as pool:
        assert await pool.submit(abs, -1) == 1
        sent = await refused(pool.submit(len, bytes(LARGE)))
        pulled = await refused(pool.submit(bytes, LARGE))
        assert "sec.bulk." in sent.subject and "sec.bulk." in pulled.subject


async def test_replies_that_may_not_be_sent_are_logged_once(lacking: Any) -> None:
    # It may answer what it is asked once, which a first reply is: both have to go.
    unanswering = without(r"sec\.reply\.\*\.\*\.\*")
    server, factory = lacking(lambda text: re.sub("allow_responses.*", "", unanswering(text)))
    worker = factory("jobs", max_workers=1, spares=0)
    async with pool_of(server, "caller", timeout=1.0) as pool:
        for _ in range(2):
            with pytest.raises(CallTimeoutError):
                await pool.submit(abs, -1)
    await until(lambda: "does not allow this user to publish to 'sec.reply." in worker.stderr())
    assert worker.stderr().count("does not allow this user to publish to 'sec.reply.") == 1


async def test_results_that_may_not_be_heard(lacking: Any) -> None:
    server, factory = lacking(without(r"sec\.told\.\*\.[0-9a-f]{8}\.\*\.\*"))
    factory("jobs", max_workers=1, spares=0)
    async with pool_of(server, "caller") as pool:
        error = await refused(pool.enqueue(abs, -1), operation="subscribe")
        assert error.subject.startswith("sec.told.jobs.")


async def test_inboxes_that_may_not_be_heard(lacking: Any) -> None:
    def change(text: str) -> str:
        text = without(r"sec\.note\.\*\.progress\.[0-9a-f]{8}\.\*\.\*")(text)
        text = without(r"sec\.told\.\*\.=\.=\.\*")(text)
        own = re.findall(r'"(sec\.bulk\.[0-9a-f]{8}\.\*\.\*)"', text)[1]  # the first one is the worker's
        return without(re.escape(own))(text)

    server, factory = lacking(change)
    factory("jobs", max_workers=1, spares=0)
    async with pool_of(server, "caller") as pool:
        error = await refused(pool.submit(len, bytes(LARGE)), operation="subscribe")
        assert error.subject.startswith("sec.bulk.")
        task = await pool(time.sleep).options(id="own").enqueue(1)
        error = await refused(task.result(timeout=10), operation="subscribe")
        assert error.subject == "sec.told.jobs.=.=.own"
        task = await pool.enqueue(time.sleep, 0.1)
        error = await refused(anext(task.watch()), operation="subscribe")
        assert error.subject.startswith("sec.note.jobs.progress.")


async def test_a_worker_that_may_not_serve_tasks_leaves(lacking: Any) -> None:
    _, factory = lacking(without(r"\$JS\.API\.INFO"))
    with pytest.raises(ExecutorError, match=r"publish to '\$JS\.API\.INFO'"):
        factory("jobs", max_workers=1, spares=0)


async def test_answers_of_streams_that_may_not_be_heard(lacking: Any) -> None:
    server, _ = lacking(without(r"sec\.api\.[0-9a-f]{8}\.\*\.\*"))
    async with pool_of(server, "caller") as pool:
        assert ".api." in (await refused(pool.enqueue(abs, -1), operation="subscribe")).subject


async def test_users_that_are_bound_to_no_pool_keep_apart_too(lacking: Any) -> None:
    server, factory = lacking(str, *USERS)
    factory("Any.pool", max_workers=1, spares=0)
    async with pool_of(server, "web", "Any.pool") as web, pool_of(server, "batch", "Any.pool") as batch:
        assert await web.submit(abs, -2) == 2
        task = await web.enqueue(abs, -3)
        assert await task.result(timeout=10) == 3
        assert (await task.status()).state is TaskState.COMPLETED
        await refused(batch.task(task.id).result(timeout=10))
        await refused(anext(web.tasks()))
        large = await web.enqueue(bytes, LARGE)
        assert await large.result(timeout=10) == bytes(LARGE)
        subjects, id = await stored_apart(web, large.id)
        stream, js = subjects.blobs_stream, batch._home.engine.tasks._js  # type: ignore[union-attr]
        await refused(get_last(js, stream, subjects.blob(id, 0)))
        await refused(get_last(js, stream, subjects.of("blob", "*", "*", "*")))
        await refused(Publisher(js, stream).publish(subjects.blob(id, 0), b"", msg_id=None))


async def test_what_was_told_during_an_outage_is_read_one_by_one(server: SecuredServer) -> None:
    async with pool_of(server, "web") as web:
        tasks = [await web.enqueue(abs, number) for number in range(3)]
        assert [await task.result(timeout=10) for task in tasks] == [0, 1, 2]
        outcomes = web._home.engine.tasks._outcomes  # type: ignore[union-attr]
        subjects = [
            outcomes._subjects.state(id) for id in (tasks[0].id, tasks[1].id, tasks[0].id[:16] + "0" * 16)
        ]
        assert list(await outcomes._last(subjects)) == subjects[:2]


async def test_after_an_outage_a_caller_reads_its_own_results(
    lacking: Any, notes: Notes, tmp_path: Path
) -> None:
    server, factory = lacking(str, *USERS)
    factory("jobs", max_workers=1, spares=0)
    release = tmp_path / "release"
    async with pool_of(server, "web") as web:
        task = await web.enqueue(task_jobs.go_on, notes.path, str(release), 1)
        waiting = asyncio.create_task(task.result(timeout=30))
        await notes.wait()
        await asyncio.to_thread(server.restart)
        release.touch()
        assert await asyncio.wait_for(waiting, 30) == [0]


async def test_keys_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, client = authority.issue("server"), authority.issue("client")
    tls = ("--tls-cert", certificate.cert, "--tls-key", certificate.key, "--tls-ca", authority.file)
    own = {"tls_ca": authority.file, "tls_cert": client.cert, "tls_key": client.key}
    with SecuredServer(tmp_path / "nats", *tls) as server:
        assert server.facts["url"].startswith("tls://")
        factory = WorkerFactory({**server.options("worker"), **own})
        try:
            factory("jobs", max_workers=1, spares=0)
            async with pool_of(server, "caller", **own) as pool:
                assert await pool.submit(abs, -1) == 1
                assert await pool.submit(len, bytes(LARGE)) == LARGE
            async with pool_of(server, "observer", **own) as observer:
                await refused(observer.submit(abs, -1))
            with pytest.raises(ConnectionLostError, match="tls_cert"):
                async with pool_of(server, "caller", tls_ca=authority.file, connect_timeout=1) as stranger:
                    await stranger.submit(abs, -1)
        finally:
            factory.stop()
