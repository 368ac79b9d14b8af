"""Between workers: what is told, asked for, handed on and refused."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest

from genro_nats.worker.balance.decisions import (
    AT_ONCE,
    EASE,
    MAX_HOPS,
    OLDER,
    PAUSE,
    WORTH,
    Fate,
    Waiting,
    Wish,
    delay,
    fate,
    may_move,
    share,
    spread,
    wanted,
    worth,
)
from genro_nats.worker.balance.peers import LIFE, Peers

NOTHING = Waiting(0, inf)


@pytest.mark.parametrize(
    ("held", "fits", "may_queue"), list(product((0, 9, 10, 11), (True, False), (True, False)))
)
def test_what_becomes_of_a_call(held: int, fits: bool, may_queue: bool) -> None:
    found = fate(held=held, limit=10, fits=fits, may_queue=may_queue)
    if held >= 10 or not fits:
        assert found is Fate.REFUSE
    else:
        assert found is (Fate.WAIT if may_queue else Fate.HURRY)


def test_three_hops_and_no_more() -> None:
    assert [may_move(hops) for hops in range(5)] == [True, True, True, False, False]
    assert MAX_HOPS == 3


def test_when_others_are_told() -> None:
    assert delay(brief=False, since=inf) == 0
    assert delay(brief=True, since=inf) == EASE
    for brief, since in product((True, False), (0.0, PAUSE / 2, PAUSE, 1.0)):
        assert delay(brief=brief, since=since) >= PAUSE - since
        assert 0 <= delay(brief=brief, since=since) <= max(EASE, PAUSE)


def test_short_waits_behind_short_calls_are_not_worth_a_move() -> None:
    for short, waited in product((True, False), (0.0, WORTH * 0.99, WORTH, 1.0)):
        assert worth(short=short, waited=waited) is (not short or waited >= WORTH)


def test_few_answer_at_once_and_many_one_after_the_other() -> None:
    assert spread(8) == 0
    assert 0 < spread(9) < spread(1000) <= 0.1


def test_whom_to_ask() -> None:
    crowd = {"a": Waiting(3, 5.0), "b": Waiting(1, 4.0), "c": Waiting(0, 1.0)}
    assert wanted(crowd, {}, 2, NOTHING) == Wish("b", 2, older=False)
    assert wanted(crowd, {"b": 1}, 2, NOTHING) == Wish("a", 1, older=False)
    assert wanted(crowd, {"b": 1, "a": 1}, 9, NOTHING) is None
    assert wanted(crowd, {"b": 2}, 2, NOTHING) is None
    assert wanted(crowd, {}, 0, NOTHING) is None
    assert wanted(crowd, {}, -5, NOTHING) is None
    assert wanted({"c": Waiting(0, 1.0)}, {}, 2, NOTHING) is None
    assert wanted({}, {}, 2, NOTHING) is None


@pytest.mark.parametrize("younger", [0.0, OLDER * 0.99, OLDER * 1.01, 1.0])
@pytest.mark.parametrize("room", [-3, 0])
def test_older_calls_come_first(younger: float, room: int) -> None:
    own = Waiting(4, 100.0 + younger)
    found = wanted({"a": Waiting(2, 100.0)}, {}, room, own)
    assert found == (Wish("a", 1, older=True) if younger > OLDER else None)
    assert wanted({"a": Waiting(2, 100.0)}, {"b": 1}, room, own) is None
    # Who has no child free and nothing waiting wants nothing: those calls would only wait here.
    assert wanted({"a": Waiting(2, 1.0)}, {}, room, NOTHING) is None


@pytest.mark.parametrize(("asked", "waiting"), list(product((0, 1, 2, 40), (0, 1, 2, 3, 20, 500))))
def test_how_many_are_handed_on(asked: int, waiting: int) -> None:
    assert share(asked, waiting, brief=False) == min(asked, waiting)
    brief = share(asked, waiting, brief=True)
    assert brief == min(waiting, max(asked, min(AT_ONCE, waiting // 2)))
    assert share(-1, waiting, brief=False) == 0


def test_what_is_known_of_the_others() -> None:
    peers = Peers()
    assert not len(peers)
    assert peers.hear("a", Waiting(2, 1.0), 10.0)
    assert not peers.hear("a", Waiting(3, 1.0), 11.0)
    assert peers.waiting(11.0) == {"a": Waiting(3, 1.0)}
    assert peers.some_wait
    peers.ask("a", 2, 11.0)
    assert peers.asked(11.5) == {"a": 2}
    assert peers.oldest_asked(11.5) == 1.0
    assert peers.asked(12.5) == {}  # it will not come any more
    peers.answered("a")
    assert peers.asked(11.5) == {}
    assert peers.oldest_asked(11.5) == 11.5
    assert peers.waiting(14.0) == {}  # an old word
    peers.hear("a", Waiting(0, 1.0), 14.0)
    assert not peers.some_wait
    peers.expire(14.0 + LIFE)
    assert len(peers) == 1
    peers.expire(14.1 + LIFE)
    assert not len(peers)


def test_one_that_leaves_is_forgotten() -> None:
    peers = Peers()
    assert not peers.hear("b", Waiting(-1, inf), 1.0)
    peers.hear("a", Waiting(2, 1.0), 1.0)
    peers.ask("a", 2, 1.0)
    assert not peers.hear("a", Waiting(-1, inf), 2.0)
    assert (len(peers), peers.some_wait, peers.asked(2.0)) == (0, False, {})
    peers.hear("a", Waiting(2, 1.0), 3.0)
    peers.ask("a", 2, 3.0)
    peers.unanswered()
    assert (len(peers), peers.some_wait, peers.asked(3.0)) == (1, False, {})
