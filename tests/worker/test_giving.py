"""A call that was handed on and comes back while what it was before is not forgotten everywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.worker.balance.giving import Giving

pytestmark = pytest.mark.anyio

ID = bytes(range(16))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Call:
    """A large call that waits, as ``Giving`` sees it."""

    id, key, reply, hops, urgent, large = ID, b"m:f", "reply", 0, False, True
    message = encode(Frame(FrameKind.CALL, ID, b"m:f"))

    def __init__(self) -> None:
        self.came = asyncio.get_running_loop().time()
        self.deadline = self.came + 100


class Children:
    """All busy."""

    queue = ()
    all_short = all_brief = False
    surplus = 0

    def room(self) -> int:
        return 0

    def part_with(self, work: Any) -> None:
        pass


class Holder:
    """Whose calls these are: one that tells which were admitted."""

    def __init__(self) -> None:
        self.children = Children()
        self.admitted: asyncio.Queue[Any] = asyncio.Queue()

    def admit(self, work: Any) -> None:
        self.admitted.put_nowait(work)

    def handed_on(self, work: Any) -> None:
        pass


class Letters:
    """Says that everything arrives."""

    group = "group"

    def tell(self, *args: Any) -> None:
        pass

    def hand(self, peer: str, it: Any) -> str:
        return "receipt"


def a_giving() -> tuple[Any, Holder]:
    holder = Holder()
    found: Any = Giving(Letters(), ["peer"], holder)  # type: ignore[arg-type]
    return found, holder


async def test_a_call_that_came_back_is_the_one_that_runs() -> None:
    giving, holder = a_giving()
    before, back = Call(), Call()
    assert giving.keep(before)
    assert giving._hand(before, "peer")
    assert giving.keep(back)
    async with asyncio.timeout(10):
        assert await holder.admitted.get() is back
    giving._admit(before)
    assert holder.admitted.empty()
    giving.aclose()


async def test_what_a_call_was_before_does_not_take_it_out_of_the_lobby() -> None:
    giving, holder = a_giving()
    before, back = Call(), Call()
    assert giving.keep(before)
    assert giving._hand(before, "peer")
    assert giving.keep(back)
    assert not giving.drop(before)
    assert giving.drop(back)
    for work in (before, back):  # as their timers do
        giving._admit(work)
    assert holder.admitted.empty()
    giving.aclose()
