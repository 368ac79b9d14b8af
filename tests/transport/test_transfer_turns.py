"""Who pulls next, without any I/O."""

from __future__ import annotations

from genro_nats.transport.transfer.turns import ALL, AT_ONCE, PER_OWNER, Turn, Turns


class Queue:
    """Turns, and the owners whose pulls have begun, in order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[str] = []
        self.ended: list[str] = []

    def join(self, owner: str, count: int = 1) -> list[Turn]:
        found = []
        for _ in range(count):
            turn = self.turns.join(owner, lambda: self.begun.append(owner), lambda: self.ended.append(owner))
            found.append(turn)
            self.turns.go()
        return found


def test_one_owner_has_so_many() -> None:
    queue = Queue()
    turns = queue.join("a", 10)
    assert queue.begun == ["a"] * PER_OWNER
    queue.turns.leave("a", turns[0])
    assert len(queue.begun) == PER_OWNER + 1
    for turn in turns[1:]:
        queue.turns.leave("a", turn)
    assert not queue.turns.going
    assert not queue.turns.begun
    assert not queue.turns._lanes


def test_half_is_kept_for_owners_that_have_none() -> None:
    queue = Queue()
    for owner in "abcd":
        queue.join(owner, 10)
    assert len(queue.begun) == AT_ONCE // 2 + 2  # one each of c and d
    for number in range(AT_ONCE):
        queue.join(f"more {number}")
    assert queue.turns.going == AT_ONCE


def test_turns_go_round() -> None:
    queue = Queue()
    first = queue.join("a", PER_OWNER)
    queue.join("b", PER_OWNER)
    queue.join("a", 5)
    queue.join("c", 3)
    del queue.begun[:]
    for turn in first:
        queue.turns.leave("a", turn)
    assert sorted(queue.begun) == ["a", "a", "c"] or sorted(queue.begun) == ["a", "c", "c"]


def test_a_silent_one_takes_no_place() -> None:
    queue = Queue()
    first, *_ = [turn for number in range(AT_ONCE) for turn in queue.join(f"{number}")]
    queue.join("0")
    del queue.begun[:]
    queue.turns.rest(first)
    assert not queue.begun  # no more of the silent one's
    queue.join("other")
    assert queue.begun == ["other"]
    queue.turns.go_on(first)
    assert queue.turns.going == AT_ONCE + 1
    queue.turns.rest(first)
    queue.turns.leave("0", first)
    assert queue.turns.going == AT_ONCE


def test_silent_ones_are_not_without_number() -> None:
    queue = Queue()
    for number in range(ALL + 10):
        for turn in queue.join(f"{number}"):
            if not turn.waiting:
                queue.turns.rest(turn)
    assert len(queue.begun) == ALL


def test_who_leaves_before_its_turn() -> None:
    queue = Queue()
    turns = queue.join("a", PER_OWNER + 2)
    queue.turns.leave("a", turns[-1])
    queue.turns.leave("a", turns[0])
    assert len(queue.begun) == PER_OWNER + 1
    assert not queue.turns._lanes["a"].waiting
