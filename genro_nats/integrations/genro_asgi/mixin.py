"""The capability of a genro-asgi server to own pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from genro_asgi import BaseServer

from genro_nats.errors import ConfigurationError
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.registry import ExecutorRegistry
from genro_nats.integrations.genro_asgi.life import PoolsLife
from genro_nats.integrations.genro_asgi.pools import ServerRegistry

if TYPE_CHECKING:
    from genro_asgi.types import Receive, Scope, Send

    _Server = BaseServer
else:
    _Server = object

__all__ = ["ExecutorMixin"]

DRAIN_TIMEOUT: Final = 10.0  # seconds


class ExecutorMixin(_Server):
    """Pools on a server: ``class Server(ExecutorMixin, AsgiServer)``, in this order.

    ``executors``: pools by name, each a mapping of ``kind`` and options, also beside a
    recipe. ``executor_drain_timeout``: seconds that calls in hand get at the shutdown.
    All other arguments are the server's. Raises ConfigurationError for a pool
    that can't be made, naming it.

    Pools start with the ASGI lifespan, and one that can't start fails the boot. Where no
    lifespan runs (httpx's ASGITransport) each starts at its first call, and
    ``await server.executors.aclose()`` ends them.
    """

    def __init__(
        self,
        *args: Any,
        executors: Mapping[str, Mapping[str, Any]] | None = None,
        executor_drain_timeout: float = DRAIN_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        # Before the server: its applications may ask for pools while they are made.
        self._executor_registry = ServerRegistry()
        self._executor_drain_timeout = _seconds(executor_drain_timeout)
        for name, options in _declared(executors).items():
            self._make(name, options)
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises ConfigurationError where the mixin comes after the server and is never reached."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if BaseServer in order and order.index(BaseServer) < order.index(ExecutorMixin):
            bases = [base.__name__ for base in cls.__bases__]
            right = [base.__name__ for base in sorted(cls.__bases__, key=_after_mixin)]
            raise ConfigurationError(
                f"class {cls.__name__}({', '.join(bases)}): ExecutorMixin comes after the server and "
                f"would never be reached. Write class {cls.__name__}({', '.join(right)})."
            )

    @property
    def executors(self) -> ExecutorRegistry:
        """All pools of this server."""
        return self._executor_registry

    def executor(self, kind: str | None = None, *, name: str = "default", **options: Any) -> BaseExecutor:
        """The pool of that name; a new one, of ``kind`` (default: process), if there is none.

        Configuration wins over ``kind`` and ``options``. Raises ConfigurationError as
        ``ExecutorRegistry.executor`` does. What calls of the pool raise carries a status:
        overload 429, no workers 503, a deadline 504.
        """
        return self._executor_registry.executor(kind, name=name, **options)

    def get_executor_metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of all pools by name."""
        return self._executor_registry.all_metrics()

    def _make(self, name: str, options: dict[str, Any]) -> None:
        try:
            self.executor(**options, name=name)
        except ConfigurationError as error:
            raise ConfigurationError(f"executors[{name!r}]: {error}", **error.fields) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; the lifespan takes the pools with it."""
        serve = super().__call__
        if scope["type"] != "lifespan":
            await serve(scope, receive, send)
            return

        async def server(receive: Receive, send: Send) -> None:
            await serve(scope, receive, send)

        life = PoolsLife(self._executor_registry, receive, send, self._executor_drain_timeout)
        await life.run(server)


def _after_mixin(base: type) -> bool:
    return not issubclass(base, ExecutorMixin)


def _declared(executors: Any) -> dict[str, dict[str, Any]]:
    """The constructor's ``executors``, checked for its shape."""
    if executors is None:
        return {}
    if not isinstance(executors, Mapping):
        raise ConfigurationError(
            f"executors is a {type(executors).__name__}: pass a mapping of pool names to kind and options, "
            'such as executors={"heavy": {"kind": "process"}}.'
        )
    return {name: _options(name, options) for name, options in executors.items()}


def _options(name: Any, options: Any) -> dict[str, Any]:
    place = f"executors[{name!r}]"
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{place}: the name of a pool is text that is not empty.")
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f'{place} is a {type(options).__name__}: pass a mapping such as {{"kind": "process"}}.'
        )
    if not all(isinstance(option, str) for option in options):
        raise ConfigurationError(f"{place} has an option whose name is not text.")
    if "name" in options:
        raise ConfigurationError(
            f"{place} has an option 'name': the key {name!r} is the pool's name already."
        )
    if not isinstance(options.get("kind"), str | None):
        raise ConfigurationError(
            f"{place}: 'kind' is not text: write the kind, such as 'nats'.", option="kind"
        )
    return dict(options)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"executor_drain_timeout is {value!r}: use seconds, 0 or more.")
    return float(value)
