"""What a puller decides, without any I/O."""

from __future__ import annotations

import pytest

from genro_nats.transport.transfer.credit import (
    ABSENT,
    AHEAD,
    ALL,
    ASK_AGAIN,
    CHUNK,
    GIVE_UP,
    LEAST,
    PATIENCE,
    RETRY_ABSENT,
    START,
    STARVED,
    WINDOW,
    Pace,
    Step,
    Window,
    chunk_size,
)


def test_a_chunk_fits_a_message() -> None:
    assert chunk_size(64 << 20, 48) == CHUNK
    assert chunk_size(CHUNK + 48, 48) == CHUNK
    assert chunk_size(CHUNK + 47, 48) == CHUNK - 1
    assert chunk_size(10, 48) == 1


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000, 1037])
@pytest.mark.parametrize("chunk", [1, 7, 50, 100])
def test_grants_never_exceed_the_window_and_never_dry_up(size: int, chunk: int) -> None:
    window = Window(size, 0.0, window=100)
    window.ask(0.0)
    while not window.complete:
        assert window.got < window.limit <= min(size, window.got + 100)
        step = min(chunk, window.limit - window.got)
        assert window.fits(window.got, step)
        window.add(step, 0.0)
        limit = window.grant(0.0)
        assert limit is None or limit == window.limit
    assert window.got == size
    assert window.grant(0.0) is None


def test_what_does_not_fit() -> None:
    window = Window(1000, 0.0, window=100)
    assert not window.fits(0, 1)  # nothing was asked for
    window.ask(0.0)
    window.add(50, 0.0)
    for offset, length in ((0, 10), (49, 1), (51, 1), (50, 0), (50, 51)):
        assert not window.fits(offset, length)
    assert window.fits(50, 50)


def test_silence() -> None:
    window = Window(1000, 0.0)
    window.ask(0.0)
    assert window.look(ASK_AGAIN - 0.1, True) is Step.WAIT
    assert window.look(ASK_AGAIN, True) is Step.ASK
    window.ask(ASK_AGAIN)
    assert window.look(ASK_AGAIN + 0.1, True) is Step.WAIT
    window.add(1, 3.0)
    assert window.look(3.1 + ASK_AGAIN, True) is Step.ASK
    assert window.look(3.0 + GIVE_UP, True) is Step.GIVE_UP


def test_without_a_connection_no_time_passes_and_then_it_asks() -> None:
    window = Window(1000, 0.0)
    window.ask(0.0)
    assert window.look(100.0, False) is Step.WAIT
    assert window.look(101.0, True) is Step.ASK
    window.ask(101.0)
    assert window.look(101.1, True) is Step.WAIT
    assert window.look(101.0 + GIVE_UP, True) is Step.GIVE_UP


def test_an_owner_that_nobody_hears() -> None:
    window = Window(1000, 0.0)
    window.ask(0.0)
    window.absent(0.01)
    assert window.look(0.1, True) is Step.WAIT
    assert window.look(RETRY_ABSENT, True) is Step.ASK
    window.ask(RETRY_ABSENT)
    window.absent(1.0)
    assert window.look(0.1 + ABSENT, True) is Step.GIVE_UP
    window.add(1, 1.5)  # it is back
    assert window.look(0.1 + ABSENT, True) is Step.WAIT


def test_signs_of_the_owner_and_of_the_line() -> None:
    window = Window(1000, 0.0)
    window.ask(0.0)
    assert window.look(ASK_AGAIN, True, line=ASK_AGAIN - 0.1) is Step.WAIT  # its bytes may be behind others
    assert window.look(PATIENCE, True, line=PATIENCE) is Step.ASK
    window.ask(PATIENCE)
    assert window.look(GIVE_UP, True, line=GIVE_UP - 0.1) is not Step.GIVE_UP
    assert window.look(2 * GIVE_UP, True, line=2 * GIVE_UP) is Step.GIVE_UP
    assert window.look(2 * GIVE_UP, True, owner=2 * GIVE_UP - 1) is not Step.GIVE_UP


def test_an_owner_that_only_gives_signs() -> None:
    window = Window(1000, 0.0)
    window.ask(0.0)
    now = 0.0
    while now + 1 < STARVED:
        now += 1
        window.told(now)
        assert window.look(now, True, owner=now, line=now) is Step.WAIT
    assert window.look(STARVED, True, owner=now, line=now) is Step.STARVED


def arrive(window: Window, rate: float, seconds: float) -> None:
    """Bytes come at a rate, what was granted behind each other."""
    now = 0.0
    while now < seconds:
        step = min(10_000, window.limit - window.got)
        now += step / rate
        window.add(step, now)
        window.grant(now)


@pytest.mark.parametrize("start", [LEAST, START, WINDOW])
def test_what_is_under_way_comes_within_a_second_or_so(start: int) -> None:
    window = Window(1 << 40, 0.0, start=start)
    window.ask(0.0)
    arrive(window, 500_000, 60)
    assert 0.7 * AHEAD * 500_000 < window.width < 1.5 * AHEAD * 500_000
    window = Window(1 << 40, 0.0, start=start)
    window.ask(0.0)
    arrive(window, 50e6, 5)
    assert window.width == WINDOW
    window = Window(1 << 40, 0.0, start=start)
    window.ask(0.0)
    arrive(window, 10_000, 600)
    assert window.width == LEAST


def test_who_asks_again_begins_small() -> None:
    window = Window(1 << 40, 0.0)
    assert window.ask(0.0) == WINDOW
    assert window.ask(2.0) == START


def test_pulls_share_what_may_be_under_way() -> None:
    pace = Pace()
    assert [pace.start(1), pace.start(2), pace.start(9)] == [START, START // 2, LEAST]
    pace.learn(4 * WINDOW)
    assert [pace.start(1), pace.start(4), pace.start(16)] == [WINDOW, WINDOW, ALL // 16]
    assert pace.most(1000) == LEAST
