"""What the two codecs cost on a small dictionary: one call there and back, without any transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.functions import echo
from genro_nats.codec.frame import chunks, decode
from genro_nats.codec.functions import FunctionCache
from genro_nats.executor.wire import CallEncoder, load_reply
from genro_nats.message import Call
from genro_nats.worker.answers import value_reply
from genro_nats.worker.runner import open_call

__all__ = ["CodecFigures", "order", "round_trip", "time_codecs"]

_TURN: Final = 0.02  # seconds


@dataclass(slots=True)
class CodecFigures:
    """Seconds of a call and its reply, of each turn; ``size``: bytes of the dictionary's pickle."""

    size: int = 0
    pickle: list[float] = field(default_factory=list)
    data: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Data over pickle, the medians."""
        return median(self.data) / median(self.pickle)


def order() -> dict[str, Any]:
    """A dictionary as an application passes it, of 1 KB when pickled."""
    return {
        "id": 81726354,
        "reference": "2026-11-21/81726354",
        "customer": "Ada Lovelace",
        "email": "ada.lovelace@example.org",
        "language": "en",
        "currency": "EUR",
        "total": 772.2,
        "vat": 139.25,
        "discount": None,
        "paid": True,
        "gift": False,
        "created": 1795248000.125,
        "address": {"street": "12 St James's Square", "city": "London", "zip": "SW1Y 4JH", "country": "GB"},
        "tags": ["new", "export", "express", "insured"],
        "lines": [101, 205, 330, 418, 502, 617],
        "counts": [1, 2, 1, 4, 1, 12],
        "prices": [9.9, 19.5, 120.0, 33.25, 7.75, 14.1],
        "note": "Please ring twice and leave the parcel with the neighbour on the second floor if nobody opens.",
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "history": ["created", "confirmed", "paid", "packed", "handed over to the carrier"],
        "carrier": "Northern Parcel Services",
        "tracking": "NPS-2026-81726354-7",
        "warehouse": 7,
        "weight": 4.825,
    }


def round_trip(codec: str) -> Callable[[Any], Any]:
    """What is done to a value on its way to a function and back, by the code that pools and children use."""
    encoder, cache = CallEncoder(codec), FunctionCache()

    def there_and_back(value: Any) -> Any:
        call, _ = encoder.encode(Call(echo, (value,), {}), 30.0)
        frame, _ = decode(b"".join(chunks(call)))
        opened = open_call(frame, cache)
        reply, _ = decode(b"".join(value_reply(frame, opened.args[0], 0.0)))
        return load_reply(reply, encoder.codecs)

    return there_and_back


def time_codecs(turns: int) -> CodecFigures:
    """So many turns of each, one after the other."""
    import pickle

    value = order()
    figures = CodecFigures(len(pickle.dumps(value, 5)))
    ways = [(round_trip("pickle"), figures.pickle), (round_trip("data"), figures.data)]
    for way, _ in ways:
        assert way(value) == value
    for turn in range(turns):
        for way, times in ways if turn % 2 else reversed(ways):
            times.append(_seconds(way, value))
    return figures


def _seconds(way: Callable[[Any], Any], value: Any) -> float:
    """Of one of those that fit into a turn."""
    count, begin = 0, perf_counter()
    while (passed := perf_counter() - begin) < _TURN:
        for _ in range(20):
            way(value)
        count += 20
    return passed / count
