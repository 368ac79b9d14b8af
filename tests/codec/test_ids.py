"""Call ids, many to a frame."""

from __future__ import annotations

from genro_nats.codec.ids import batches, split_ids
from genro_nats.message import new_id


def test_all_ids_arrive_in_their_order_and_no_message_holds_too_many() -> None:
    ids = [new_id() for _ in range(5000)]
    bodies = [b"".join(batch) for batch in batches(ids)]
    assert [len(body) for body in bodies] == [2048 * 16, 2048 * 16, 904 * 16]
    assert [id for body in bodies for id in split_ids(memoryview(body))] == ids
    assert not list(batches([])) and split_ids(b"") == []
