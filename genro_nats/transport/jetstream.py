"""JetStream spoken directly: requests to its API, insisted on while a stream's leader is away.

What streams, publishing, reading and pulling share. A stream's leader that
was killed is missing for about five seconds, a restarting server for longer:
requests that are safe to repeat are repeated for ``patience`` seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from genro_nats.errors import ConnectionLostError, ServerTooOldError, StreamError, StreamUnavailableError
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.requests import Requester

__all__ = ["API", "NO_ROOM", "PATIENCE", "STORE_FAILED", "JetStream", "answer", "refusal"]

API: Final = "$JS.API."
PATIENCE: Final = 10.0  # seconds; a killed leader is replaced in about five
_API_TIMEOUT: Final = 5.0  # seconds for one attempt
_WITHOUT: Final = 1.0  # seconds of patience where the server runs without JetStream: a leaf may lead to one
_PAUSE: Final = (0.02, 0.5)  # seconds between attempts, first and longest
_AWAY: Final = (429, 503)  # the server's codes for "not now"
_NOBODY: Final = (
    "no such stream, its leader is away, or the server runs without JetStream, which tasks need: "
    "start nats-server with -js, or with jetstream {} in its configuration"
)
STORE_FAILED: Final = (
    10077  # a 503 too, but the message is too large or the stream full: waiting does not help
)

_STORE: Final = (
    "the server's store is full: make room on its disk or in its streams, or raise max_file_store "
    "(unless stated, three quarters of what was free on the disk when the server started)"
)
_FULL: Final = {
    10002: "the account's store is full: make room in its streams, or raise the account's limits",
    10023: _STORE,
    10028: "the server's memory for streams is full: make room there, or raise max_memory_store",
    10047: _STORE,
    STORE_FAILED: "make room in the stream, or raise its limits",
}
NO_ROOM: Final = frozenset(_FULL)  # err_codes; waiting helps only if somebody makes room

T = TypeVar("T")


class JetStream:
    """The JetStream API of one connection. ``inbox``: a subject of its own, ending in a dot."""

    def __init__(self, connection: Connection, inbox: str) -> None:
        self.connection = connection
        self.requester = Requester(connection, inbox)

    async def start(self) -> None:
        """Get ready; the connection is started before."""
        await self.requester.start()

    async def aclose(self) -> None:
        """Let go of the connection, which stays open. Can be repeated."""
        await self.requester.aclose()

    def require(self, feature: str, needed: tuple[int, int]) -> None:
        """Raise ServerTooOldError unless the server is of that version or newer."""
        found = self.connection.server_version
        if found[:2] < needed:
            raise ServerTooOldError(
                f"{feature} needs nats-server {needed[0]}.{needed[1]} or newer; "
                f"the one at {self.connection.shown} is {'.'.join(map(str, found))}. Update it.",
                feature=feature,
                needed=needed,
                found=found,
            )

    async def insist(self, attempt: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
        """What ``attempt`` gives; it is made again while the stream or the server is away.

        Raises:
            StreamUnavailableError, ConnectionLostError: still away after ``patience`` seconds.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + patience
        pause, longest = _PAUSE
        while True:
            try:
                return await attempt()
            except (StreamUnavailableError, ConnectionLostError):
                if not self.connection.may_have_jetstream:
                    deadline = min(deadline, begun + _WITHOUT)
                left = deadline - loop.time()
                if left <= 0:
                    raise
            await self._until_up(left)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, longest)

    async def api(self, call: str, body: object = None, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Call ``$JS.API.<call>`` and return the answer.

        Raises:
            StreamError: the server refused it; ``code`` is its err_code.
            StreamUnavailableError, ConnectionLostError: as ``insist``.
        """
        data = b"" if body is None else json.dumps(body).encode()

        async def attempt() -> dict[str, Any]:
            return answer(await self.requester.request(API + call, data, timeout=_API_TIMEOUT), API + call)

        return await self.insist(attempt, patience)

    async def _until_up(self, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await self.connection.up.wait()
        except TimeoutError:
            pass  # the next attempt says what is wrong


def answer(message: Message, subject: str) -> dict[str, Any]:
    """The JSON of an answer to a request on ``subject``. Raises what the server says went wrong."""
    if message.status:
        raise refusal(message, subject)
    found: dict[str, Any] = json.loads(message.data)
    error = found.get("error")
    if error:
        code, status = error.get("err_code", 0), error.get("code", 0)
        raise _error(subject, status, code, error.get("description", ""))
    return found


def refusal(message: Message, subject: str) -> StreamError | StreamUnavailableError:
    """The error for a status in place of an answer."""
    text = _NOBODY if message.status == "503" else message.headers.get("Description", "")
    return _error(subject, int(message.status), 0, text)


def _error(subject: str, status: int, code: int, text: str) -> StreamError | StreamUnavailableError:
    if status in _AWAY and code not in NO_ROOM:
        return StreamUnavailableError(f"JetStream is away on {subject}: {text} ({status}).", subject=subject)
    why = f"; {_FULL[code]}" if code in _FULL else ""
    return StreamError(
        f"JetStream refused {subject}: {text} ({status}, err_code {code}){why}.", code=code, subject=subject
    )
