"""The decision what to ask for: tried on every small state."""

from __future__ import annotations

import itertools

from genro_nats.transport.priority import WAITING, Ask, Known, decide

UNKNOWN = Known()
EMPTY = Known(empty=True, waiting=4)

LEVELS = [
    Known(empty, waiting, probing, blocked)
    for empty in (False, True)
    for waiting in (0, 1, 2, 5)
    for probing in (0, 1, 3)
    for blocked in (False, True)
]
STATES = [
    (free, levels)
    for free in (-1, 0, 1, 2, 4, 9)
    for levels in itertools.product(LEVELS, LEVELS[::3], LEVELS[::5])
]


def test_nothing_without_slots() -> None:
    assert all(decide(free, levels) == [] for free, levels in STATES if free <= 0)


def test_a_level_is_asked_only_while_all_higher_ones_are_empty() -> None:
    for free, levels in STATES:
        for ask in decide(free, levels):
            assert all(known.empty and not known.blocked for known in levels[: ask.level])
            assert not levels[ask.level].blocked
            assert ask.wait == levels[ask.level].empty


def test_never_more_without_waiting_than_slots() -> None:
    for free, levels in STATES:
        for ask in decide(free, levels):
            if not ask.wait:
                promised = sum(known.probing for known in levels[: ask.level + 1])
                assert 1 <= ask.batch <= free - promised
            else:
                assert 1 <= ask.batch <= min(free, WAITING) - levels[ask.level].waiting


def test_each_level_is_asked_once_the_highest_first() -> None:
    for free, levels in STATES:
        order = [ask.level for ask in decide(free, levels)]
        assert order == sorted(set(order))


def test_with_free_slots_something_is_always_out() -> None:
    for free, levels in STATES:
        if free > 0 and not any(known.blocked for known in levels):
            first = next((n for n, known in enumerate(levels) if not known.empty), None)
            if first is not None and not levels[first].probing:
                # Else it would never be known that this level is empty, and no lower one had its turn.
                promised = sum(known.probing for known in levels[:first])
                assert promised >= free or Ask(
                    first, max(1, free - promised - levels[first].waiting), False
                ) in (decide(free, levels))


def test_idle_levels_all_wait() -> None:
    assert decide(3, [EMPTY, Known(True), Known(True)]) == [Ask(1, 3, True), Ask(2, 3, True)]
    assert decide(100, [Known(True)] * 3) == [Ask(n, WAITING, True) for n in range(3)]
    assert decide(8, [EMPTY, EMPTY, UNKNOWN]) == [Ask(0, 4, True), Ask(1, 4, True), Ask(2, 8, False)]


def test_asks_are_not_made_for_single_slots() -> None:
    assert decide(64, [Known(probing=63)]) == []
    assert decide(64, [Known(probing=32)]) == [Ask(0, 32, False)]
    assert decide(64, [Known(True, waiting=15)]) == []
