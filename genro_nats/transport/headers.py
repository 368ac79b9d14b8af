"""Headers: of received messages read when somebody asks for one, since most are never looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar, overload

__all__ = ["Headers", "header_block", "header_size"]

_VERSION: Final = len("NATS/1.0")
_SPACE: Final = ord(" ")

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """A block of headers as it came; the server's own status is among them as "Status" and "Description"."""

    __slots__ = ("_found", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._found: dict[str, str] | None = None

    @property
    def status(self) -> str:
        """The server's own word in place of a reply, such as "503"; mostly empty."""
        if len(self._raw) <= _VERSION or self._raw[_VERSION] != _SPACE:
            return ""
        return self.get("Status", "")

    def _read(self) -> dict[str, str]:
        if self._found is None:
            self._found = _parsed(self._raw)
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: T | None = None) -> str | T | None:
        """The value of a header; the inherited way would raise and catch for each that is missing."""
        return self._read().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _parsed(raw: bytes) -> dict[str, str]:
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    found: dict[str, str] = {}
    status, _, text = first[_VERSION:].strip().partition(" ")
    if status.isdigit():
        found = {"Status": status, "Description": text.strip()}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire, to be made once and sent often."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def header_size(headers: Mapping[str, str]) -> int:
    """Bytes that the headers take of max_payload: a version line, `name: value` lines, an empty line."""
    text = sum(len(key) + len(value) + 4 for key, value in headers.items())
    wide = sum(len(value.encode()) - len(value) for value in headers.values() if not value.isascii())
    return 12 + text + wide
