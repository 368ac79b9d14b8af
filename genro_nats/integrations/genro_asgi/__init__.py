"""Pools on a genro-asgi server: ``class Server(ExecutorMixin, AsgiServer)``.

::

    server = Server(
        applications=[Shop],
        executors={"heavy": {"kind": "nats", "subject": "tasks.heavy"}},
    )
    render = server.executor("process", name="pdf")(render)      # a decorator
    await self.server.executor(name="heavy").submit(report, 7)   # in a handler

Needs the extra ``genro``. What a pool of the server refuses answers the request
by itself: 429 for overload and 503 where no worker serves, both with
``Retry-After``, 504 for a deadline; over HTTP and websocket messages alike.
"""

from __future__ import annotations

try:
    import genro_asgi as _genro_asgi  # noqa: F401
except ImportError as error:
    raise ImportError(
        'genro_nats.integrations.genro_asgi needs genro-asgi: pip install "genro-nats[genro]".',
        name=error.name,
    ) from error

from genro_nats.integrations.genro_asgi.errors import HttpNoWorkersError, HttpOverloadError, HttpTimeoutError
from genro_nats.integrations.genro_asgi.mixin import ExecutorMixin

__all__ = ["ExecutorMixin", "HttpNoWorkersError", "HttpOverloadError", "HttpTimeoutError"]
