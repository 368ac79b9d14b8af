"""Seals fit one message only; keys are read, changed, and never shown."""

from __future__ import annotations

import base64
import hmac
import os
import pickle
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats import ConfigurationError, PoolOptions, SignatureError
from genro_nats.codec.replays import Window
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Flaw, Keyring, Opening, new_key
from genro_nats.transport.contexts import Contexts
from genro_nats.transport.guard import Guard, make_guard
from genro_nats.transport.headers import header_block

SECRET = bytes(range(32))
RING = Keyring([("one", SECRET)])
SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


def reason(found: object) -> str:
    assert isinstance(found, Flaw), found
    return found.reason


@given(st.binary(max_size=200), st.binary(max_size=100), st.integers(0, 2**64 - 1))
def test_what_was_sealed_is_found_right(data: bytes, context: bytes, now: int) -> None:
    sealed = RING.seal(context, [data[:7], data[7:]], now) + data
    assert len(sealed) == SEAL_SIZE + len(data)
    opened = RING.verify(context, sealed)
    assert not isinstance(opened, Flaw)
    assert opened[:2] == (data, now)


@given(st.data())
def test_one_changed_bit_anywhere_is_seen(draw: st.DataObject) -> None:
    data, context = draw.draw(st.binary(max_size=100)), draw.draw(st.binary(min_size=1, max_size=50))
    sealed = bytearray(RING.seal(context, [data], NOW) + data)
    bit = draw.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert isinstance(RING.verify(context, bytes(sealed)), Flaw)
    start = bytes(sealed)
    opening = RING.opening(context, start)
    if isinstance(opening, Opening):
        opening.update(start[SEAL_SIZE:])
        assert opening.verdict() is not None


@given(st.data())
def test_cut_lengthened_or_for_another_context_it_is_wrong(draw: st.DataObject) -> None:
    data, context = draw.draw(st.binary(max_size=60)), draw.draw(st.binary(max_size=40))
    sealed = RING.seal(context, [data], NOW) + data
    other = draw.draw(st.binary(max_size=40).filter(lambda it: it != context))
    assert reason(RING.verify(other, sealed)) == "wrong signature"
    assert reason(RING.verify(context, sealed + b"x")) == "wrong signature"
    cut = draw.draw(st.integers(0, len(sealed) - 1))
    assert reason(RING.verify(context, sealed[:cut])) in ("wrong signature", "unsigned")
    # What moves between context and data is no other reading of the same bytes.
    if context:
        assert isinstance(RING.verify(context[:-1], sealed[:SEAL_SIZE] + context[-1:] + data), Flaw)


@given(st.binary(max_size=120))
def test_bytes_of_others_are_unsigned(data: bytes) -> None:
    assert reason(RING.verify(b"", data)) in ("unsigned", "unknown key")
    assert isinstance(RING.opening(b"", data), Flaw)


def test_the_seal_is_laid_out_as_documented() -> None:
    sealed = RING.seal(b"a.b\nc.d", [b"data"], NOW)
    head = b"\x93GS\x01" + b"one\0\0\0\0\0" + NOW.to_bytes(8, "big")
    assert sealed[:20] == head
    covered = (7).to_bytes(4, "big") + b"a.b\nc.d" + head + b"data"
    assert sealed[20:] == hmac.digest(SECRET, covered, "sha256")
    long = os.urandom(100)  # longer than a block of SHA-256
    covered = bytes(4) + MAGIC + b"long\0\0\0\0" + bytes(8)
    assert Keyring([("long", long)]).seal(b"", [], 0)[20:] == hmac.digest(long, covered, "sha256")


def test_keys_change_without_a_pause() -> None:
    old, new = new_key("old"), new_key("new")
    first, both, turned, last = (
        Keyring.parse(text, "x") for text in (old, f"{old}\n{new}", f"{new}, {old}", f"# {old}\n{new}")
    )
    for writer, reader in [(first, both), (both, first), (both, turned), (turned, both), (turned, last)]:
        assert not isinstance(reader.verify(b"", writer.seal(b"", [], NOW)), Flaw)
    found = last.verify(b"", both.seal(b"", [], NOW))
    assert reason(found) == "unknown key"
    assert "'old'" in found.text and "key new" in found.text  # type: ignore[union-attr]
    stranger = Keyring.parse(new_key("new"), "x")
    assert reason(last.verify(b"", stranger.seal(b"", [], NOW))) == "wrong signature"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no key"),
        ("# nothing", "no key"),
        ("hush", "Key 1"),
        ("toolong-id:" + base64.b64encode(SECRET).decode(), "Key 1"),
        ("a:" + base64.b64encode(b"hush" * 7).decode(), "at least 32 bytes"),
        (f"{new_key('a')} b:hush!", "Key 2"),
        (f"{new_key('a')} {new_key('a')}", "same id"),
    ],
    ids=["nothing", "a comment", "no id", "a long id", "a short key", "the second", "the same id"],
)
def test_a_bad_key_is_named_by_its_place_and_never_shown(text: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint) as caught:
        Keyring.parse(text, "GENRO_NATS_KEY")
    told = str(caught.value)
    assert "GENRO_NATS_KEY" in told
    assert "hush" not in told and base64.b64encode(SECRET).decode() not in told
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_keys_show_their_ids_only() -> None:
    ring = Keyring.parse(new_key("mine"), "x")
    assert repr(ring) == "<Keyring mine>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(ring)
    with pytest.raises(ConfigurationError, match="no id"):
        new_key("a:b")


def test_both_base64_alphabets_are_read() -> None:
    secret = b"\xfb\xff" * 16
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        ring = Keyring.parse("k:" + encode(secret).decode().rstrip("="), "x")
        assert ring.seal(b"", [], 0) == Keyring([("k", secret)]).seal(b"", [], 0)


# -- time and replays ----------------------------------------------------------


def test_a_window_takes_each_seal_once() -> None:
    window = Window(60)
    assert window.take(NOW, b"a", NOW) is None
    assert window.take(NOW, b"b", NOW) is None
    assert reason(window.take(NOW, b"a", NOW + 59 * SECOND)) == "replayed"
    assert reason(window.take(NOW, b"c", NOW + 61 * SECOND)) == "too old"
    early = window.take(NOW + 75 * SECOND, b"d", NOW)
    assert reason(early) == "too old"
    assert "75.0 s after" in early.text and "set the clocks" in early.text  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.integers(-70, 70), st.integers(0, 5), st.integers(-100, 200)), max_size=60))
def test_no_order_of_times_lets_one_in_twice(tries: list[tuple[int, int, int]]) -> None:
    window, now, taken = Window(60, most=10), NOW, set()
    for offset, code, later in tries:
        now += later * SECOND // 10
        seal = (now + offset * SECOND, bytes([code]))
        if window.take(*seal, now) is None:
            assert seal not in taken
            assert abs(seal[0] - now) <= 60 * SECOND  # also after the clock was set back
            taken.add(seal)
        assert len(window) <= 11


def test_a_flood_shortens_the_window_and_lets_nothing_in_twice() -> None:
    window = Window(60, most=1000)
    seals = [(NOW + n * SECOND // 50, n.to_bytes(4, "big")) for n in range(2500)]  # 50 seconds
    assert all(window.take(when, code, when) is None for when, code in seals)
    assert len(window) <= 1000
    again = [reason(window.take(when, code, NOW + 50 * SECOND)) for when, code in seals]
    assert set(again) == {"too old", "replayed"}
    told = window.take(*seals[0], NOW + 50 * SECOND)
    assert told is not None and "shortened" in told.text


# -- what a seal is for -----------------------------------------------------------

KEYED = Guard(RING, "own.p", 60)
TASK = "own.p.task.t_x.now.normal.=.id1"
Headers = dict[str, str]


def stored(guard: Guard, subject: str, headers: Headers | None = None, data: bytes = b"d") -> bytes:
    return guard.seal(subject, [data], "own.p.api.x.1", headers) + data


def test_a_task_is_good_where_the_server_moves_it_and_nowhere_else() -> None:
    later = TASK.replace(".now.", ".later.")
    sealed = stored(KEYED, later, {"Nats-Schedule": "@at x", "Nats-Schedule-Target": TASK})
    for subject, headers in [(later, {}), (TASK, {}), (TASK, {"Nats-Scheduler": later})]:
        assert KEYED.open_stored(subject, sealed, headers) == b"d"
    for subject in (
        TASK.replace("id1", "id2"),
        TASK.replace("t_x", "t_y"),
        TASK.replace("normal", "high"),
        TASK.replace("=", "key"),
        "own.p.state.t_x.=.id1",
        "own.p.dead.t_x.id1",
        "own.p.call.t_x",
    ):
        assert reason(KEYED.open_stored(subject, sealed, {})) == "wrong signature", subject
    # As a schedule's run it would get a new id at each replay.
    run = {"Nats-Scheduler": "own.p.schedule.t_x.nightly"}
    assert reason(KEYED.open_stored(TASK, sealed, run)) == "wrong signature"
    assert KEYED.open_buried(TASK, sealed) == b"d"


def test_a_schedule_is_bound_to_its_name_and_target() -> None:
    name, target = "own.p.schedule.t_x.nightly", TASK.replace("id1", "nightly")
    headers = {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": target}
    sealed = stored(KEYED, name, headers)
    assert KEYED.open_stored(name, sealed, headers) == b"d"
    block = KEYED.seal(name, [b"d"], "", None, header_block(headers)) + b"d"
    assert KEYED.open_stored(name, block, headers) == b"d"
    assert KEYED.open_stored(target, sealed, {"Nats-Scheduler": name}) == b"d"
    assert KEYED.open_buried(target, sealed) == b"d"
    assert reason(KEYED.open_stored(target, sealed, {})) == "wrong signature"
    assert reason(KEYED.open_stored(name, sealed, {"Nats-Schedule-Target": TASK})) == "wrong signature"
    assert reason(KEYED.open_stored(target, sealed, {"Nats-Scheduler": name + "2"})) == "wrong signature"


def test_a_record_is_bound_to_the_one_it_was_stored_over() -> None:
    expected = "Nats-Expected-Last-Subject-Sequence"
    state = "own.p.state.t_x.=.id1"
    sealed = stored(KEYED, state, {expected: "7"})
    block = (
        KEYED.seal(state, [b"d"], "", None, f"NATS/1.0\r\nA: b\r\n{expected}: 7\r\nC: d\r\n\r\n".encode())
        + b"d"
    )
    for data in (sealed, block):
        assert KEYED.open_stored(state, data, {expected: "7"}) == b"d"
        assert KEYED.open_stored("own.p.told.t_x.=.id1", data, {expected: "7"}) == b"d"
        assert reason(KEYED.open_stored(state, data, {expected: "8"})) == "wrong signature"
        assert reason(KEYED.open_stored(state, data, {})) == "wrong signature"


def test_a_seal_of_another_version_is_named() -> None:
    flaw = RING.verify(b"", MAGIC[:3] + b"\x02" + RING.seal(b"", [], NOW)[4:])
    assert isinstance(flaw, Flaw)
    assert "in version 2, and this side reads version 1" in flaw.text


def test_the_server_is_heard_without_a_seal_and_only_where_it_speaks() -> None:
    for subject in ("$JS.API.STREAM.INFO.x", "$JS.ACK.x.y", "own.p.api.abc.1"):
        assert KEYED.seal(subject, [b"x"], "own.p.api.abc.1") == b""
        assert KEYED.open(KEYED.room(subject), subject, "", b"{}", "", {}) == b"{}"
    told = ("worker", "reply", "bulk", "pull", "peers")
    rooms = (*told, "call", "control", "presence", "ask", "told", "task", "new")
    for room in (f"{room}.x.y" for room in rooms):
        subject = f"own.p.{room}"
        assert reason(KEYED.open(KEYED.room(subject), subject, "r", b"{}", "", {})) == "unsigned"
        # Who sends a status of his own gets no data in with it, and is heard only where the server is asked.
        for data in (b"{}", b""):
            opened = KEYED.open(KEYED.room(subject), subject, "r", data, "503", {})
            assert opened == b"" if room.split(".")[0] in told else reason(opened) == "status"
        assert len(KEYED.seal(subject, [b"x"], "")) == SEAL_SIZE
    assert reason(KEYED.open("", "foreign.api.x", "", b"{}", "", {})) == "unsigned"


def test_a_reply_is_no_call_and_a_call_is_of_one_caller() -> None:
    call, reply = "own.p.call.x", "own.p.reply.c.1"
    sealed = KEYED.seal(call, [b"d"], reply) + b"d"
    assert reason(KEYED.open("call", call, "own.p.reply.c.2", sealed, "", {})) == "wrong signature"
    assert reason(KEYED.open("call", "own.p.call.y", reply, sealed, "", {})) == "wrong signature"
    assert reason(KEYED.open("reply", reply, call, sealed, "", {})) == "wrong signature"
    assert KEYED.open("call", call, reply, sealed, "", {}) == b"d"
    assert reason(KEYED.open("call", call, reply, sealed, "", {})) == "replayed"


def test_without_a_key_what_is_sealed_is_refused() -> None:
    guard = Guard(None, "own.p")
    assert guard.overhead == 0
    assert guard.seal("own.p.call.x", [b"d"], "") == b""
    sealed = KEYED.seal("own.p.call.x", [b"d"], "r") + b"d"
    assert reason(guard.open("call", "own.p.call.x", "r", sealed, "", {})) == "no key"
    assert guard.open("call", "own.p.call.x", "r", b"GN\x01", "", {}) == b"GN\x01"
    assert guard.rejected == {"no key": 1}


def test_every_room_has_a_rule() -> None:
    """Under a prefix of several words too."""
    contexts = Contexts("own.p")
    assert contexts.room("own.p.call.x.y") == "call"
    assert contexts.room("own.px.call.x") == contexts.room("own") == ""
    assert contexts.room("$JS.API.X") == "$"


# -- where keys come from ------------------------------------------------------------


@pytest.fixture
def write(tmp_path: object) -> Callable[[str], str]:
    def put(text: str) -> str:
        path = f"{tmp_path}/keys"
        with open(path, "w") as file:  # noqa: PTH123 - a test's own
            file.write(text)
        return path

    return put


def test_keys_come_from_the_file_or_the_variable(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filed, stated = new_key("filed"), new_key("stated")
    monkeypatch.delenv("GENRO_NATS_KEY", raising=False)
    assert not make_guard(PoolOptions()).keyed
    monkeypatch.setenv("GENRO_NATS_KEY", f"{stated} {new_key('old')}")
    guards = make_guard(PoolOptions()), make_guard(PoolOptions(key_file=write(filed)))
    assert [guard._keys.ids for guard in guards if guard._keys] == [("stated", "old"), ("filed",)]
    shown = repr(PoolOptions(key_file=write(filed))) + repr([vars(guard) for guard in guards])
    assert filed.partition(":")[2] not in shown and stated.partition(":")[2] not in shown


def test_a_file_that_can_not_be_read_is_named(write: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match="key_file"):
        make_guard(PoolOptions(key_file="/no/such"))
    with pytest.raises(ConfigurationError, match="Key 1") as caught:
        make_guard(PoolOptions(key_file=write("hush")))
    assert "hush" not in str(caught.value)


def test_a_flaw_becomes_an_error_with_its_reason() -> None:
    error = Flaw("unsigned", "it is unsigned").error("A call")
    assert isinstance(error, SignatureError)
    assert (str(error), error.reason) == ("A call: it is unsigned", "unsigned")


def test_time_comes_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(RING, "own.p", window=60)
    sealed = guard.seal("own.p.call.x", [b"d"], "r") + b"d"
    before = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: before + 61 * SECOND)
    assert reason(guard.open("call", "own.p.call.x", "r", sealed, "", {})) == "too old"
    assert guard.open_stored("own.p.note.t.v.o.i", guard.seal("own.p.note.t.v.o.i", [], ""), {}) == b""
