"""The pools of a server: those of any registry, whose errors carry a status."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from genro_nats.errors import ExecutorError
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.registry import ExecutorRegistry
from genro_nats.executor.stream import Stream
from genro_nats.integrations.genro_asgi.errors import http_error
from genro_nats.message import CallOptions

__all__ = ["ServerRegistry"]


class ServerRegistry(ExecutorRegistry):
    """An ``ExecutorRegistry`` whose pools raise errors that answer a request by themselves."""

    def executor(self, kind: str | None = None, *, name: str = "default", **options: Any) -> BaseExecutor:
        """The pool of that name, made if there is none: see ``ExecutorRegistry.executor``."""
        pool = super().executor(kind, name=name, **options)
        if not isinstance(pool, _Answering):
            pool.__class__ = _answering(type(pool))
        return pool


class _Answering(BaseExecutor):
    """Goes before a kind's own class, and gives the errors of its calls their status."""

    async def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().submit(function, *args, **kwargs)  # type: ignore[safe-super]
        except ExecutorError as error:
            _raise(error)

    async def invoke(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        try:
            return await super().invoke(function, args, kwargs, options)
        except ExecutorError as error:
            _raise(error)

    def invoke_blocking(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        try:
            return super().invoke_blocking(function, args, kwargs, options)
        except ExecutorError as error:
            _raise(error)

    def invoke_stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Stream[Any]:
        stream = super().invoke_stream(function, args, kwargs, options)

        async def begin() -> StreamSource:
            return _AnsweringSource(stream)

        return Stream(begin)


class _AnsweringSource:
    """The items of a stream, whose errors get their status."""

    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream

    async def receive(self) -> Any:
        try:
            return await anext(self._stream)
        except ExecutorError as error:
            _raise(error)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Nothing: after an error the stream has ended itself, and its last reference goes with this."""


def _raise(error: ExecutorError) -> None:
    """Raise the error with its status, the plain one as its cause."""
    answer = http_error(error)
    if answer is error:
        raise error
    raise answer from error


def _answering(kind: type[BaseExecutor]) -> type[BaseExecutor]:
    """The kind's class with ``_Answering`` before it, under the same name."""
    made = types.new_class(kind.__name__, (_Answering, kind))
    made.__module__, made.__qualname__ = kind.__module__, kind.__qualname__
    return made
