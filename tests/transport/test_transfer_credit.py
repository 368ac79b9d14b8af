"""What a puller decides, without any I/O."""

from __future__ import annotations

import pytest

from genro_nats.transport.transfer.credit import (
    ABSENT,
    ASK_AGAIN,
    CHUNK,
    GIVE_UP,
    RETRY_ABSENT,
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
        limit = window.grant()
        assert limit is None or limit == window.limit
    assert window.got == size
    assert window.grant() is None


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
