"""What a reader stands between, to look at what it hands on."""

from __future__ import annotations

from genro_nats.transport.reader import Raw


class Inner:
    """nats-py's protocol, as the reader sees it."""

    def __init__(self) -> None:
        self.got = bytearray()

    def data_received(self, data: bytes) -> None:
        self.got += data


class Transport:
    """What a reader asks of the connection's transport."""

    resting = False

    def pause_reading(self) -> None:
        self.resting = True

    def resume_reading(self) -> None:
        self.resting = False

    def is_closing(self) -> bool:
        return False


class Hearing:
    """Messages of one subscription."""

    def __init__(self) -> None:
        self.messages: list[Raw] = []

    def came(self, messages: list[Raw]) -> None:
        self.messages += messages
