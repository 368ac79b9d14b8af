"""Several payloads at once over a link that is slow, and beside an owner that is silent."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator

import pytest

from genro_nats.codec.frame import Buffer, Frame, FrameKind
from genro_nats.codec.signing import Keyring
from genro_nats.config import PoolOptions
from genro_nats.errors import ConnectionLostError
from genro_nats.transport.guard import Guard
from genro_nats.transport.transfer import credit, puller
from genro_nats.transport.transfer import owner as owners
from genro_nats.transport.transfer.transfer import Transfer
from tests.transport.brokers import Brokers
from tests.transport.slow_link import SlowLink
from tests.transport.streaming import until
from tests.transport.test_transfer import Held

pytestmark = pytest.mark.anyio


class Site:
    """Makes transfers on one server, some behind a slow link."""

    def __init__(self, brokers: Brokers) -> None:
        self.broker = brokers("")
        self._made: list[Transfer] = []
        self._links: list[SlowLink] = []

    async def link(self, rate: float) -> SlowLink:
        self._links.append(SlowLink(self.broker.port, rate))
        return self._links[-1]

    async def __call__(self, url: str = "", guard: Guard | None = None) -> Transfer:
        transfer = Transfer(PoolOptions(url=(url or self.broker.url("nats"),)), "test", guard)
        self._made.append(transfer)
        await transfer.open()
        return transfer

    async def aclose(self) -> None:
        for transfer in self._made:
            await transfer.aclose()
        for link in self._links:
            await link.aclose()


@pytest.fixture
async def site(brokers: Brokers) -> AsyncIterator[Site]:
    site = Site(brokers)
    yield site
    await site.aclose()


async def pulled(transfer: Transfer, owner: Transfer, data: bytes) -> None:
    sink = io.BytesIO()
    await transfer.pull(owner.owner.offer([data]), sink)
    assert sink.getvalue() == data


def questions(owner: Transfer) -> list[Frame]:
    """The PULL frames that an owner gets from now on."""
    found: list[Frame] = []
    handle = owner.line.on_frame

    def heard(frame: Frame) -> None:
        if frame.kind == FrameKind.PULL:
            found.append(frame)
        handle(frame)

    owner.line.on_frame = heard
    return found


async def test_a_slow_puller_of_several_payloads(site: Site) -> None:
    """They wait behind each other, and that is no silence."""
    link = await site.link(1e6)
    owner, slow = await site(), await site(await link.start())
    asked = questions(owner)
    datas = [os.urandom(5_000_000) for _ in range(2)]
    async with asyncio.timeout(25):
        first = asyncio.create_task(pulled(slow, owner, datas[0]))
        await until(lambda: link.moved[1] > 100_000)
        await pulled(slow, owner, datas[1])
        await first
    assert len(asked) == len(datas)
    assert link.moved[1] < 1.05 * sum(map(len, datas))  # nothing came twice


async def test_several_pullers_of_a_slow_owner(site: Site) -> None:
    """A round of all takes longer than pullers wait in silence: the owner gives signs."""
    link = await site.link(1e6)
    owner = await site(await link.start())
    pullers = [await site() for _ in range(16)]
    asked = questions(owner)
    datas = [os.urandom(600_000) for _ in pullers]
    async with asyncio.timeout(25):
        await asyncio.gather(*(pulled(one, owner, data) for one, data in zip(pullers, datas, strict=True)))
    assert len(asked) == len(pullers)
    assert link.moved[0] < 1.05 * sum(map(len, datas))


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_sign_is_believed(site: Site, keyed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed or not, it goes where the puller hears it, and does no harm."""
    monkeypatch.setattr(owners, "_BEAT", 0.0)
    guards = [Guard(Keyring([("k", bytes(32))]), "genro") if keyed else None for _ in range(2)]
    owner, one = [await site(guard=guard) for guard in guards]
    told: list[bytes] = []
    believe = one._puller.beat

    def beat(body: Buffer) -> None:
        told.append(bytes(body))
        believe(body)

    one._puller.beat = beat  # type: ignore[method-assign]
    await asyncio.gather(*(pulled(one, owner, os.urandom(5_000_000)) for _ in range(3)))
    await until(lambda: told)
    assert not any(len(body) % 16 for body in told)


async def test_a_window_is_wide_on_a_fast_line(site: Site) -> None:
    owner, fast = await site(), await site()
    await pulled(fast, owner, bytes(20_000_000))
    asked = questions(owner)
    await pulled(fast, owner, bytes(20_000_000))
    assert int.from_bytes(asked[0].body[24:32], "big") == credit.WINDOW


async def test_a_silent_owner_holds_up_nobody_else(site: Site) -> None:
    silent, owner, one = await site(), await site(), await site()
    held = Held(silent, 0)
    waiting = [asyncio.create_task(pulled(one, silent, bytes(1_000_000))) for _ in range(40)]
    await until(lambda: held.left < 0)
    async with asyncio.timeout(2):
        for _ in range(3):
            await asyncio.gather(*(pulled(one, owner, bytes(2_000_000)) for _ in range(6)))
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_many_silent_owners_hold_up_nobody_else(site: Site) -> None:
    silent = [await site() for _ in range(20)]
    owner, one = await site(), await site()
    helds = [Held(transfer, 0) for transfer in silent]
    waiting = [asyncio.create_task(pulled(one, owner, bytes(200_000))) for owner in silent for _ in range(3)]
    await until(lambda: sum(held.left < 0 for held in helds) >= 4)
    async with asyncio.timeout(credit.GIVE_UP - 2):
        await pulled(one, owner, bytes(2_000_000))
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_what_waits_for_a_lost_owner_ends_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "GIVE_UP", 1.0)
    silent, one = await site(), await site()
    Held(silent, 0)
    waiting = [asyncio.create_task(pulled(one, silent, bytes(1_000_000))) for _ in range(16)]
    async with asyncio.timeout(2.5):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, ConnectionLostError) for result in results)
    assert not one._puller._turns.begun
    assert not one._puller._turns._lanes


async def test_what_waits_for_its_turn_is_not_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "REMIND", 0.05)
    owner, one = await site(), await site()
    held = Held(owner, 0)
    first = [asyncio.create_task(pulled(one, owner, bytes(1_000_000))) for _ in range(4)]
    await until(lambda: held.left < 0)
    signs: list[int] = []
    sink = io.BytesIO()
    reference = owner.owner.offer([bytes(300_000)], lambda: signs.append(len(sink.getvalue())))
    last = asyncio.create_task(one.pull(reference, sink))
    await until(lambda: len(signs) >= 3)
    assert signs[:3] == [0, 0, 0]
    held.open.set()
    await asyncio.wait_for(asyncio.gather(*first, last), 10)
    assert len(sink.getvalue()) == 300_000
