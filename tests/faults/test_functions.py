"""Functions by value over NATS and in children: fetched once, checked, forgotten, through every way of failing."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable
from math import inf
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats import (
    CallTimeoutError,
    DecodeError,
    ExecutorError,
    FunctionNotFoundError,
    NatsExecutor,
    PoolOptions,
    ProcessExecutor,
    PythonVersionError,
    WorkerLostError,
    current_call,
)
from genro_nats.codec.by_value import FunctionBlob, FunctionField, inline_field
from genro_nats.codec.exceptions import load_error
from genro_nats.codec.frame import Flag, Frame, FrameKind, decode, decode_all, encode, size
from genro_nats.codec.function_store import FunctionStore
from genro_nats.codec.reference import refer
from genro_nats.message import new_id
from genro_nats.transport.address import Address
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker import functions
from genro_nats.worker.functions import FunctionShelf, Needed
from tests.faults import jobs
from tests.faults.conftest import ROOT, Fleet, Notes, roster, until
from tests.faults.test_large_payloads import transfer_of

pytestmark = pytest.mark.anyio
NO_ARGUMENTS = pickle.dumps(((), {}), 5)


def made(number: int = 0, length: int = 5000) -> Callable[..., Any]:
    """A function of about so many bytes that is sent apart from its calls."""
    padding = bytes([number]) * length

    def f(x: Any = None) -> Any:
        return padding[0], len(padding), x

    return f


class Listener:
    """What goes over the wire of one fleet: frames by kind."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.kinds: Counter[int] = Counter()
        self.bytes: Counter[int] = Counter()

    async def heard(self, message: Any) -> None:
        for frame in decode_all(message.data):
            self.kinds[frame.kind] += 1
            self.bytes[frame.kind] += len(message.data)


@pytest.fixture
async def client(shared_fleet: Fleet) -> AsyncIterator[Any]:
    server = shared_fleet.server
    found = await nats.connect(server.url, user=server.user, password=server.password)
    yield found
    await found.close()


@pytest.fixture
async def wire(shared_fleet: Fleet, client: Any) -> Listener:
    found = Listener(client, shared_fleet.prefix)
    for room in ("call", "reply", "worker"):
        await client.subscribe(f"{shared_fleet.prefix}.{room}.>", cb=found.heard)
    await client.flush()
    return found


class Stranger:
    """A hand-made caller: sends a call by digest, and answers FETCH as ``answer(frame, worker)`` says."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.asked: list[Frame] = []

    async def call(
        self,
        blob: FunctionBlob,
        answer: Callable[[Frame], bytes | None],
        field: bytes = b"",
        seconds: float = inf,
    ) -> asyncio.Future[Frame]:
        id, inbox = new_id(), f"{self.prefix}.reply.{os.urandom(4).hex()}"
        outcome: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        async def heard(message: Any) -> None:
            for frame in decode_all(message.data):
                if frame.kind == FrameKind.FETCH:
                    self.asked.append(frame)
                    if (data := answer(frame)) is not None:
                        await self.client.publish(message.reply, data)
                elif frame.kind in (FrameKind.REPLY, FrameKind.ERROR) and not outcome.done():
                    outcome.set_result(frame)

        await self.client.subscribe(f"{inbox}.*", cb=heard)
        frame = Frame(FrameKind.CALL, id, b"made:f", body=NO_ARGUMENTS, flags=Flag.BY_DIGEST)
        frame.meta, frame.seconds = field or blob.field, seconds
        await self.client.publish(f"{self.prefix}.call.faults", encode(frame), f"{inbox}.{id.hex()}")
        return outcome

    async def error(self, *args: Any, **given: Any) -> BaseException:
        frame = await asyncio.wait_for(await self.call(*args, **given), 15)
        assert frame.kind == FrameKind.ERROR
        error = load_error(frame.body)
        assert isinstance(error, BaseException)
        return error


def answered(blob: FunctionBlob, id: bytes) -> bytes:
    return b"".join(bytes(part) for part in blob.answer(id))


# -- fetching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "threads", "async-process"])
async def test_fifty_first_calls_fetch_once(shared_fleet: Fleet, wire: Listener, kind: str) -> None:
    given = {"kind": kind} if kind == "async-process" else {}
    await shared_fleet.worker(max_workers=2, threads=2 if kind == "threads" else 1, **given)
    pool, f = shared_fleet.caller(timeout=20), made(length=50_000)
    found = await asyncio.gather(*(pool.submit(f, n) for n in range(50)))
    assert found == [(0, 50_000, n) for n in range(50)]
    assert await pool.submit(f, 50) == (0, 50_000, 50)
    await wire.client.flush()
    await until(lambda: wire.kinds[FrameKind.REPLY] >= 51)
    assert (wire.kinds[FrameKind.FETCH], wire.kinds[FrameKind.FUNCTION]) == (1, 1)
    assert wire.bytes[FrameKind.CALL] < 51 * 500


async def test_two_callers_of_one_function(shared_fleet: Fleet, wire: Listener) -> None:
    worker = await shared_fleet.worker()
    first, second, f = shared_fleet.caller(timeout=20), shared_fleet.caller(timeout=20), made(1)
    assert await first.submit(f) == await second.submit(f) == (1, 5000, None)
    assert wire.kinds[FrameKind.FETCH] == 1
    assert worker.count("function.fetched") == 1


async def test_a_function_larger_than_a_message(shared_fleet: Fleet, wire: Listener) -> None:
    numpy: Any = pytest.importorskip("numpy")
    worker = await shared_fleet.worker(max_workers=2)
    pool, array = shared_fleet.caller(timeout=20), numpy.arange(1_000_000.0)

    def look(at: int) -> Any:
        array[0] += 1  # writable and the child's own
        return float(array[at])

    with pytest.warns(UserWarning, match=r"look is sent by value with 'array' \(8,000,\d\d\d bytes\)"):
        found = await asyncio.gather(*(pool.submit(look, n) for n in range(1, 20)))
    assert found == list(range(1, 20))
    assert array[0] == 0
    assert worker.count("function.fetched") == 1
    assert wire.bytes[FrameKind.FUNCTION] < 1000
    await until(lambda: len(transfer_of(pool).owner) == 0)


async def test_a_large_function_with_large_arguments(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool, data = shared_fleet.caller(timeout=20), bytes(3_000_000)

    def measure(path: str, more: bytes) -> int:
        jobs.note(path, "ran")
        return len(data) + len(more)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert await pool.submit(measure, notes.path, bytes(2_000_000)) == 5_000_000
        assert await pool.submit(measure, notes.path, b"") == 3_000_000
    assert notes.counts() == {"ran": 2}


async def test_a_function_over_the_limit(shared_fleet: Fleet) -> None:
    worker = await shared_fleet.worker(max_workers=1, max_payload_size=100_000)
    pool, modest = shared_fleet.caller(timeout=10), shared_fleet.caller(timeout=10, max_payload_size=100_000)
    with pytest.raises(ExecutorError, match=r"takes 200,\d\d\d bytes; pool 'faults' sends 100,000"):
        await modest.submit(made(length=200_000))
    with pytest.raises(ExecutorError, match=r"takes 200,\d\d\d bytes; this worker takes 100,000"):
        await pool.submit(made(length=200_000))
    assert await pool.submit(made()) == (0, 5000, None)
    assert worker.count("function.fetched") == 1


# -- what goes wrong ----------------------------------------------------------------------------------


class Mark:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return jobs.note, (self.path, "unpickled")


async def test_another_digest(shared_fleet: Fleet, client: Any, notes: Notes) -> None:
    """What was sent is not what was named: nothing of it is unpickled."""
    await shared_fleet.worker(max_workers=1)
    stranger = Stranger(client, shared_fleet.prefix)
    good = FunctionStore(1 << 20).blob(made())
    bad = FunctionBlob(pickle.dumps(Mark(notes.path)), [])
    name = good.digest.hex().encode()

    def lies(frame: Frame) -> bytes:
        told = decode(answered(bad, frame.id))[0]
        return encode(Frame(FrameKind.FUNCTION, frame.id, name, body=told.body))

    def shifted(frame: Frame) -> bytes:  # the same bytes, cut otherwise
        told = decode(answered(good, frame.id))[0]
        return encode(
            Frame(FrameKind.FUNCTION, frame.id, name, body=told.body[:-1], buffers=[told.body[-1:]])
        )

    for answer in (lies, shifted):
        error = await stranger.error(good, answer)
        assert isinstance(error, DecodeError)
        assert "another digest" in str(error)
    assert notes.lines() == []
    pool = shared_fleet.caller(timeout=10)
    assert await pool.submit(made()) == (0, 5000, None)


@pytest.mark.parametrize("change", ["digest", "size", "kind", "garbage", "missing"])
async def test_another_large_function(shared_fleet: Fleet, client: Any, change: str, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=20)
    await pool.submit(jobs.take_bytes, bytes(2_000_000))  # opens its line of payloads
    good = FunctionBlob(os.urandom(2_000_000), [])
    frame = decode(answered(good, bytes(16)))[0]
    if change == "digest":
        frame.body = pickle.dumps(Mark(notes.path)).ljust(2_000_000, b".")
    elif change == "size":
        frame.body = bytes(frame.body) + b"x"
    elif change == "kind":
        frame.kind = FrameKind.CALL
    data = os.urandom(good.size) if change == "garbage" else encode(frame)
    owner = transfer_of(pool).owner

    def answer(asked: Frame) -> bytes:
        start = Frame(FrameKind.FUNCTION, asked.id, good.digest.hex().encode())
        reference = owner.offer([data], once=True)
        if change == "missing":
            owner.drop(reference.payload)
        return refer(encode(start), reference)

    error = await Stranger(client, shared_fleet.prefix).error(good, answer)
    assert isinstance(error, ExecutorError)
    assert notes.lines() == []
    assert await pool.submit(made()) == (0, 5000, None)


async def test_a_caller_that_lost_its_function(shared_fleet: Fleet, client: Any) -> None:
    await shared_fleet.worker(max_workers=1)
    blob = FunctionStore(1 << 20).blob(made())
    stranger = Stranger(client, shared_fleet.prefix)
    gone = await stranger.error(blob, lambda frame: encode(Frame(FrameKind.GONE, frame.id, frame.name)))
    assert isinstance(gone, FunctionNotFoundError)
    assert "made:f is sent by value, and its caller does not have it" in str(gone)
    assert gone.function == "made:f"


async def test_a_silent_caller_does_not_hold_up_another(shared_fleet: Fleet, client: Any) -> None:
    """Who died while it was asked is asked in vain; the next one is asked soon after."""
    await shared_fleet.worker(max_workers=1)
    f = made(3)
    stranger = Stranger(client, shared_fleet.prefix)
    silent = await stranger.call(FunctionStore(1 << 20).blob(f), lambda frame: None)
    await until(lambda: stranger.asked)
    pool = shared_fleet.caller(timeout=20)
    assert await asyncio.wait_for(pool.submit(f, 1), 9) == (3, 5000, 1)
    frame = await asyncio.wait_for(silent, 5)  # and what the other one sent serves it too
    assert frame.kind == FrameKind.REPLY


async def test_answers_that_nobody_asked_for(shared_fleet: Fleet, client: Any, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    blob = FunctionStore(1 << 20).blob(made())
    name = blob.digest.hex().encode()

    def first_others(frame: Frame) -> bytes:
        wrong = FunctionBlob(pickle.dumps(Mark(notes.path)), [])
        return b"".join(
            [
                answered(wrong, frame.id),
                answered(wrong, new_id()),
                encode(Frame(FrameKind.FUNCTION, new_id(), name, body=b"x")),
                encode(Frame(FrameKind.FUNCTION, frame.id, b"\xff", body=b"x")),
                encode(Frame(FrameKind.GONE, frame.id, b"not hex")),
                encode(Frame(FrameKind.GONE, new_id(), name)),
                answered(blob, frame.id),
            ]
        )

    outcome = await Stranger(client, shared_fleet.prefix).call(blob, first_others)
    assert (await asyncio.wait_for(outcome, 10)).kind == FrameKind.REPLY
    assert notes.lines() == []


async def test_another_version_of_python(shared_fleet: Fleet, client: Any, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    blob = FunctionBlob(pickle.dumps(Mark(notes.path)), [])
    stranger = Stranger(client, shared_fleet.prefix)
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    error = await stranger.error(blob, lambda frame: None, field=b"\x03\x63" + blob.field[2:])
    assert isinstance(error, PythonVersionError)
    assert "Python 3.99" in str(error)
    assert f"this worker runs Python {ours}" in str(error)
    assert (error.caller, error.worker, error.function) == ("3.99", ours, "made:f")
    assert stranger.asked == []
    assert notes.lines() == []


async def test_the_deadline_passes_while_its_function_is_awaited(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker(max_workers=1)
    pool, padding = shared_fleet.caller(), "x" * 3000

    def noted(path: str) -> int:
        jobs.note(path, "ran")
        return len(padding)

    engine = await held_back(pool)
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.5)(noted)(notes.path)
    engine.release()
    assert await asyncio.wait_for(pool(timeout=10)(noted)(notes.path), 12) == 3000
    assert notes.lines() == ["ran"]
    assert worker.count("child.lost") == 0


async def test_a_deadline_that_its_caller_does_not_see(shared_fleet: Fleet, client: Any) -> None:
    await shared_fleet.worker(max_workers=1)
    stranger, begin = Stranger(client, shared_fleet.prefix), time.monotonic()
    error = await stranger.error(FunctionStore(1 << 20).blob(made()), lambda frame: None, seconds=0.3)
    assert isinstance(error, CallTimeoutError)
    assert time.monotonic() - begin < 8  # and not once its caller is given up
    assert len(stranger.asked) == 1


async def test_the_time_left_counts_from_the_call(shared_fleet: Fleet) -> None:
    await shared_fleet.worker(max_workers=1)
    pool, padding = shared_fleet.caller(), "x" * 3000

    def left() -> tuple[float, int]:
        return current_call().remaining, len(padding)

    held = await held_back(pool)
    call = asyncio.create_task(pool(timeout=20)(left)())
    await until(lambda: held.asked)
    await asyncio.sleep(1)  # of the time that the call has
    held.release()
    assert (await call)[0] < 19.1


class HeldAnswers:
    """A caller that answers no FETCH until it is released."""

    def __init__(self, engine: Any) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answers = engine._answers
        self._asked = engine._answers.asked
        engine._answers.asked = lambda *args: self.asked.append(args)

    def release(self) -> None:
        self._answers.asked = self._asked
        for args in self.asked:
            self._asked(*args)


async def held_back(pool: NatsExecutor) -> HeldAnswers:
    await pool.start()
    return HeldAnswers(pool._home.engine)  # type: ignore[union-attr]


async def test_cancelled_while_its_function_is_awaited(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool, padding = shared_fleet.caller(timeout=20), "x" * 3000

    def noted(path: str, key: str) -> int:
        jobs.note(path, key)
        return len(padding)

    held = await held_back(pool)
    first = asyncio.create_task(pool.submit(noted, notes.path, "first"))
    await until(lambda: held.asked)
    second = asyncio.create_task(pool.submit(noted, notes.path, "second"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    held.release()
    assert await asyncio.wait_for(second, 10) == 3000
    assert notes.lines() == ["second"]


async def test_a_leaving_worker_hands_on_what_waits_for_its_function(
    shared_fleet: Fleet, notes: Notes
) -> None:
    """It had not started, so another worker gets it."""
    first = await shared_fleet.worker(max_workers=1, drain_timeout=0.3)
    pool, padding = shared_fleet.caller(timeout=30), "x" * 3000

    def noted(path: str) -> int:
        jobs.note(path, "ran")
        return len(padding)

    held = await held_back(pool)
    call = asyncio.create_task(pool.submit(noted, notes.path))
    await until(lambda: held.asked)
    await shared_fleet.worker(max_workers=1)
    first.signal(signal.SIGTERM)
    await first.ended()
    held.release()
    assert await asyncio.wait_for(call, 15) == 3000
    assert notes.lines() == ["ran"]


# -- restarts, limits ---------------------------------------------------------------------------------


async def test_a_worker_that_was_restarted_fetches_again(shared_fleet: Fleet) -> None:
    pool, f = shared_fleet.caller(timeout=20), made(4)
    for number in range(2):
        worker = await shared_fleet.worker(max_workers=1)
        assert await pool.submit(f, number) == (4, 5000, number)
        assert worker.count("function.fetched") == 1
        worker.signal(signal.SIGKILL)
        await worker.ended()


async def test_little_room_for_functions(shared_fleet: Fleet) -> None:
    """What is dropped on any side comes again when it is needed; at once, if several calls need it."""
    worker = await shared_fleet.worker(max_workers=1, function_cache=12_000)
    pool = shared_fleet.caller(timeout=20, function_cache=12_000)
    several = [made(number) for number in range(5)]
    for turn in range(3):
        for number, f in enumerate(several):
            assert await pool.submit(f, turn) == (number, 5000, turn)
    assert worker.count("function.fetched") == 15
    assert await pool.submit(several[4]) == (4, 5000, None)  # the newest ones stay
    assert worker.count("function.fetched") == 15
    found = await asyncio.gather(*(pool.submit(f, turn) for turn in range(20) for f in several))
    assert found == [(number, 5000, turn) for turn in range(20) for number in range(5)]
    assert worker.count("child.lost") == 0


@pytest.mark.parametrize("given", [{}, {"threads": 4}])
async def test_little_room_in_children(given: dict[str, int]) -> None:
    async with ProcessExecutor("p", max_workers=2, function_cache=12_000, timeout=20, **given) as pool:
        several = [made(number) for number in range(5)]
        found = await asyncio.gather(*(pool.submit(f, turn) for turn in range(40) for f in several))
        assert found == [(number, 5000, turn) for turn in range(40) for number in range(5)]
        for child in roster(pool).active:
            assert child._taught._known.size <= 5 * 6000


async def test_each_child_is_given_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessExecutor("p", max_workers=2, timeout=20) as pool:
        f, sent = made(length=100_000), Counter[int]()
        for child in roster(pool).children:
            send = child._pipe.send

            def counted(parts: Any, child: Any = child, send: Any = send) -> None:
                sent[child.pid] += sum(map(size, parts)) > 100_000
                send(parts)

            monkeypatch.setattr(child._pipe, "send", counted)
        await asyncio.gather(*(pool.submit(f, n) for n in range(200)))
        assert set(sent.values()) <= {0, 1}
        assert sum(sent.values()) in (1, 2)


async def test_a_new_child_is_given_it_too(notes: Notes) -> None:
    padding = "x" * 5000

    def fatal(path: str, end: bool) -> int:
        jobs.note(path, padding[0])
        if end:
            os._exit(3)
        return os.getpid()

    async with ProcessExecutor("p", max_workers=1, timeout=20) as pool:
        before = await pool.submit(fatal, notes.path, False)
        with pytest.raises(WorkerLostError):
            await pool.submit(fatal, notes.path, True)
        assert await pool.submit(fatal, notes.path, False) != before
    assert notes.counts() == {"x": 3}


async def test_sent_ahead_and_taken_back(notes: Notes) -> None:
    """Calls that move to another child take their function along, and none runs twice."""
    padding = "x" * 5000

    def work(path: str, key: int) -> int:
        jobs.note(path, key)
        if key % 50 == 0:
            time.sleep(0.05)
        return key + len(padding) - 5000

    async with ProcessExecutor("p", max_workers=2, timeout=20) as pool:
        assert await asyncio.gather(*(pool.submit(work, notes.path, n) for n in range(300))) == list(
            range(300)
        )
    assert notes.most() == 1
    assert len(notes.lines()) == 300


# -- the shelf, with times that a test can wait for ---------------------------------------------------


class Caller:
    """Hears what a shelf asks."""

    def __init__(self, name: str) -> None:
        self.inbox = f"{name}.inbox"
        self.asked: list[Frame] = []

    def needs(self) -> Needed:
        id = new_id()
        return Needed(id, "made:f", self.inbox, f"{self.inbox}.{id.hex()}")

    def heard(self, message: Message) -> None:
        self.asked += [frame for frame in decode_all(message.data) if frame.kind == FrameKind.FETCH]


class Shelf:
    def __init__(self, fleet: Fleet) -> None:
        server = fleet.server
        self.options = PoolOptions(url=(server.url,), user=server.user, password=server.password)
        self.connection = Connection(Address(self.options), "shelf")

    async def start(self) -> FunctionShelf:
        await self.connection.start()
        self.outbox = Outbox(self.connection, "shelf.worker")
        self.transfer = Transfer(self.options, "shelf")
        return FunctionShelf(self.connection, self.outbox, self.transfer, 1 << 20, lambda *a, **b: None)

    async def aclose(self) -> None:
        await self.outbox.aclose()
        await self.transfer.aclose()
        await self.connection.aclose()


async def test_how_long_a_caller_is_asked(shared_fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "ASK_AGAIN", 0.1)
    monkeypatch.setattr(functions, "GIVE_UP", 0.3)
    around = Shelf(shared_fleet)
    shelf = await around.start()
    dead, other = Caller(f"dead{os.urandom(4).hex()}"), Caller(f"other{os.urandom(4).hex()}")
    for caller in (dead, other):
        await around.connection.subscribe(f"{caller.inbox}.*", caller.heard)
    blob = FunctionStore(1 << 20).blob(made())
    field = FunctionField(b"", blob.size, blob.digest)
    waiting = asyncio.create_task(shelf.fetch(field, dead.needs(), 1 << 20))
    with pytest.raises(FunctionNotFoundError, match="made:f is sent by value; its caller was asked"):
        await asyncio.wait_for(waiting, 10)
    assert len(dead.asked) == 3
    # One that is dead ends by itself, and keeps nobody else waiting for so long.
    first = asyncio.create_task(shelf.fetch(field, dead.needs(), 1 << 20))
    await until(lambda: len(dead.asked) == 4)
    second = asyncio.create_task(shelf.fetch(field, other.needs(), 1 << 20))
    await until(lambda: other.asked)
    assert not first.done()
    shelf.received(decode(answered(blob, other.asked[0].id))[0])
    found = [await asyncio.wait_for(one, 10) for one in (first, second)]
    assert found[0] is found[1] is shelf.get(blob.digest)
    assert shelf.facts() == {"kept": 1, "bytes": blob.size, "fetched": 1}
    await around.aclose()


async def test_nobody_is_asked_for_a_call_that_was_cancelled(
    shared_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "ASK_AGAIN", 0.05)
    around = Shelf(shared_fleet)
    shelf = await around.start()
    caller = Caller(f"left{os.urandom(4).hex()}")
    waiting = asyncio.create_task(shelf.fetch(FunctionField(b"", 100, bytes(32)), caller.needs(), 1 << 20))
    await until(lambda: shelf._flights)
    waiting.cancel()
    await asyncio.wait([waiting])
    await until(lambda: not shelf._flights, 8)
    await around.aclose()


async def test_nobody_is_left_waiting_when_a_shelf_closes(shared_fleet: Fleet) -> None:
    around = Shelf(shared_fleet)
    shelf = await around.start()
    caller = Caller(f"silent{os.urandom(4).hex()}")
    field = FunctionField(b"", 100, bytes(32))
    waiting = asyncio.create_task(shelf.fetch(field, caller.needs(), 1 << 20))
    await until(lambda: shelf._flights)
    shelf.aclose()
    await asyncio.wait([waiting], timeout=5)
    assert waiting.done()
    assert not shelf._flights
    await around.aclose()


# -- real main programs --------------------------------------------------------------------------------


REPL = """
import os, sys
from genro_nats import NatsExecutor, ProcessExecutor
given = dict(zip(("url", "user", "password", "prefix"), sys.argv[1:]))
pool = NatsExecutor("p", subject="faults", timeout=20, **given) if given else ProcessExecutor("p", max_workers=1)
PAD = "x" * int(os.environ["PAD"])
def helper(): return 1

class Thing:
    def value(self): return 10

@pool
def f(): return (helper(), Thing().value(), len(PAD))

print(*f.call())
def helper(): return 2

print(*f.call())
class Thing:
    def value(self): return 20

print(*f.call())
@pool
def f(): return (helper() * 100, Thing().value(), len(PAD))

print(*f.call())
PAD += "y"
print(*f.call())
g = lambda: f.local()
print(*pool(g).call())
@pool
def fact(n): return n * fact.local(n - 1) if n else 1

print(fact.call(5), os.getpid() != pool(os.getpid).call())
import asyncio; asyncio.run(pool.aclose())
"""


@pytest.mark.parametrize("pad", [0, 5000])
@pytest.mark.parametrize("kind", ["process", "nats"])
async def test_a_repl_that_defines_things_anew(shared_fleet: Fleet, kind: str, pad: int) -> None:
    argv = [sys.executable, "-i", "-q", "-"]
    if kind == "nats":
        await shared_fleet.worker(max_workers=1)
        server = shared_fleet.server
        argv += [server.url, str(server.user), str(server.password), shared_fleet.prefix]
    program = await asyncio.to_thread(
        subprocess.run,
        argv,
        input=REPL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAD": str(pad)},
    )
    found = [line.strip() for line in program.stdout.splitlines() if line.strip()]
    expected = [f"1 10 {pad}", f"2 10 {pad}", f"2 20 {pad}", f"200 20 {pad}", f"200 20 {pad + 1}"]
    assert found == [*expected, expected[-1], "120 True"], program.stderr


MAIN = """
import asyncio, functools, multiprocessing, sys, typing
from genro_nats import CodecError, ProcessExecutor

UserId = typing.NewType("UserId", int)

@functools.cache
def memo(n: UserId): return n if n < 2 else memo(n - 1) + memo(n - 2)

def uses(n): return memo(UserId(n))

class Named:
    def __reduce__(self): return "NAMED"

NAMED = Named()

class Point:
    def __init__(self, x): self.x = x

def moved(point, by): return Point(by(point.x))

def refused(function, *args):
    try:
        return function.call(*args)
    except CodecError as error:
        return "importable module" in str(error)

def report():
    pool = ProcessExecutor("p", max_workers=1)
    point = pool(moved).call(Point(10), memo)
    print(pool(memo).call(9), pool(uses).call(10), type(point) is Point, point.x,
          refused(pool(lambda: NAMED)), refused(pool(moved), NAMED, memo), flush=True)
    asyncio.run(pool.aclose())

if __name__ == "__main__":
    report()
    child = multiprocessing.get_context("spawn").Process(target=report)
    child.start()
    child.join()
"""


async def test_what_a_main_program_and_the_processes_it_spawns_define(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(MAIN)
    program = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.stdout.splitlines() == ["34 55 True 55 True True"] * 2, program.stderr


async def test_a_module_that_the_worker_lacks(shared_fleet: Fleet, tmp_path: Path) -> None:
    """By value, a function takes what it uses of its own module along."""
    (tmp_path / "only_here.py").write_text(
        "PAD = 'x' * 3000\nclass Thing:\n    x = 5\ndef helper(n): return Thing.x * n\n"
        "def render(n): return helper(n) + len(PAD)\n"
    )
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=10)
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here  # type: ignore[import-not-found]

        with pytest.raises(FunctionNotFoundError, match="only_here"):
            await pool.submit(only_here.render, 2)
        assert await pool(by="value")(only_here.render)(2) == 3010
        by_value = shared_fleet.caller(timeout=10, by="value")
        assert await by_value.submit(only_here.render, 3) == 3015
        only_here.Thing.x = 6
        assert await by_value.submit(only_here.render, 3) == 3018
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("only_here", None)


# -- durable tasks -------------------------------------------------------------------------------------


async def test_a_task_needs_no_caller(shared_fleet: Fleet, wire: Listener) -> None:
    """Its function is stored with it, whatever its size, and runs when its caller is gone."""
    pool, padding = shared_fleet.caller(), bytes(200_000)

    def long(x: int) -> int:
        return x + len(padding)

    task = await pool(long).options(by="value").enqueue(1)
    await pool.shutdown(wait=False)
    await shared_fleet.worker(max_workers=1)
    later = shared_fleet.caller()
    assert await later.task(task.id).result(timeout=15) == 200_001
    assert wire.kinds[FrameKind.FETCH] == 0


async def test_a_task_from_another_version_of_python(
    shared_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    monkeypatch.setattr("genro_nats.codec.by_value.VERSION", b"\x03\x63")
    task = await pool(lambda: 1).options(by_value=True).enqueue()
    monkeypatch.undo()
    with pytest.raises(PythonVersionError, match=r"Python 3\.99"):
        await task.result(timeout=15)
    assert inline_field(b"")[:2] == bytes(sys.version_info[:2])
