"""The options of a pool: one frozen object with everything that any kind of executor knows.

Every kind takes every option and ignores those that don't apply to it, so that a pool can move by
configuration alone. Each field carries its meaning, its rule and the kinds that heed it as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final, Literal, Self

from genro_nats.config import rules
from genro_nats.config.cpus import usable_cpus
from genro_nats.config.display import SECRETS, shown
from genro_nats.config.rules import Rule, optional
from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["MAX_WORKERS", "OptionInfo", "PoolOptions", "describe_options", "normalized"]

MAX_WORKERS: Final = 1024
_PROCESS: Final = ("process", "async-process")
_ASYNC: Final = ("async", "async-process")
_NATS: Final = ("nats",)


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option as data, for ``--help`` and the documentation; `kinds` empty means all kinds."""

    name: str
    doc: str
    default: Any
    allowed: str
    kinds: tuple[str, ...]
    secret: bool


def _option(default: Any, doc: str, rule: Rule, kinds: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"doc": doc, "rule": rule, "kinds": kinds})


def _file(doc: str) -> Any:
    return _option(None, doc, optional(rules.path()), _NATS)


def _words(doc: str) -> Any:
    return _option(None, doc, optional(rules.text()), _NATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """All options of a pool, checked and in their final form; durations are seconds, sizes bytes.

    However it is made, a wrong value raises ConfigurationError; `build` takes option names
    that still have to be checked. What each option means is in `describe_options()`.
    """

    max_workers: int | None = _option(
        None,
        "workers that run calls at the same time; None: one per usable CPU",
        optional(rules.whole(1, MAX_WORKERS)),
    )
    max_pending: int = _option(10_000, "calls accepted and not yet answered", rules.whole(1, 1_000_000_000))
    overload: Literal["wait", "fail"] = _option(
        "wait",
        "what a call over max_pending does: wait for room, or raise ExecutorOverloadError",
        rules.choice("wait", "fail"),
    )
    timeout: float | None = _option(
        None,
        "deadline of a call in seconds, unless the call states its own; None: none",
        optional(rules.seconds()),
    )
    initializer: Callable[..., Any] | str | None = _option(  # noqa: RUF009
        None, "run once in each child or thread before its first call", optional(rules.initializer())
    )
    initargs: tuple[Any, ...] = _option((), "arguments of the initializer", rules.sequence())
    carry: tuple[ContextVar[Any], ...] = _option(
        (), "context variables that travel to processes and workers", rules.context_vars()
    )
    bypass: bool = _option(False, "run every call inline, as in tests", rules.flag())
    by: Literal["name", "value"] | None = _option(
        None,
        "how functions are sent: by 'name', to be imported there, or by 'value', pickled; "
        "None: by value where no import would find them",
        optional(rules.choice("name", "value")),
        (*_PROCESS, *_NATS),
    )
    function_cache: int = _option(
        256 * 1024**2,
        "bytes of functions by value that a caller, a worker and each of its children keep",
        rules.size(1024),
        (*_PROCESS, *_NATS),
    )
    imports: tuple[str, ...] = _option(
        (), "modules that children import before their first call", rules.modules()
    )
    codec: Literal["pickle", "data"] = _option(
        "pickle",
        "how values travel: any object, or data only, which is never unpickled (needs genro-nats[data])",
        rules.choice("pickle", "data"),
    )
    events: Any = _option(  # noqa: RUF009
        None, "who is told of the pool's events", optional(rules.observer())
    )

    threads: int = _option(
        1, "calls that one child runs at the same time", rules.whole(1, MAX_WORKERS), _PROCESS
    )
    max_tasks_per_child: int | None = _option(
        None,
        "calls after which a child is replaced; None: never",
        optional(rules.whole(1, 1_000_000_000)),
        _PROCESS,
    )
    max_memory_per_child: int | None = _option(
        None,
        "resident bytes from which on a child is replaced after its call; None: never",
        optional(rules.size(1024**2)),
        _PROCESS,
    )
    memory_limit: int | None = _option(
        None,
        "resident bytes that a child may hold: from 80 % on it gets no more calls, at 95 % it is ended; None: any",
        optional(rules.size(1024**2)),
        _PROCESS,
    )
    spares: int = _option(
        1, "warm children kept ready to replace one that ended", rules.whole(0, MAX_WORKERS), _PROCESS
    )
    cancel_grace: float = _option(
        1.0,
        "seconds that a cancelled call in a shared child has to end by itself before the child is killed",
        rules.seconds(zero=True),
        _PROCESS,
    )
    start_timeout: float = _option(60.0, "seconds that a child may take to start", rules.seconds(), _PROCESS)

    concurrency: int = _option(
        100, "calls that run at the same time in one event loop", rules.whole(1, 1_000_000), _ASYNC
    )

    max_queued: int | None = _option(
        None,
        "tasks waiting to be run from which on enqueue waits or fails, as overload says; None: no limit",
        optional(rules.whole(1, 1_000_000_000)),
    )
    lease: float = _option(
        10.0,
        "seconds after which the tasks of a worker that fell silent are run by another",
        rules.seconds(),
        _NATS,
    )
    replicas: int = _option(1, "servers that hold each stream of the pool's tasks", rules.whole(1, 5), _NATS)
    storage: Literal["file", "memory"] = _option(
        "file", "where the servers keep the pool's tasks", rules.choice("file", "memory"), _NATS
    )

    only_registered: bool = _option(
        False,
        "a worker runs decorated and listed functions only, and takes data only from its callers",
        rules.flag(),
        _NATS,
    )
    allow: tuple[str, ...] = _option(
        (),
        "functions and context variables, beside decorated ones, that a worker with only_registered lets be used",
        rules.names(),
        _NATS,
    )
    orphan_ttl: float = _option(
        3600.0,
        "seconds after which workers drop stored payloads that no task refers to: what a crash left behind; "
        "the same for callers and workers",
        rules.seconds(),
        _NATS,
    )

    subject: str | None = _option(
        None,
        "subject that the workers serve; None: 'tasks.' and the pool's name",
        optional(rules.subject()),
        _NATS,
    )
    url: tuple[str, ...] | None = _option(
        None,
        "addresses of the servers, or 'embedded'; None: NATS_URL, then nats://127.0.0.1:4222",
        optional(rules.urls()),
        _NATS,
    )
    user: str | None = _words("user name at the server")
    password: str | None = _words("password of the user")
    token: str | None = _words("authentication token")
    nkey_seed_file: str | None = _file("file with the seed of an nkey")
    credentials_file: str | None = _file("credentials file (.creds) with a JWT and a seed")
    tls_ca: str | None = _file("file with the authorities that certify the server; None: the system's")
    tls_cert: str | None = _file("file with this client's certificate")
    tls_key: str | None = _file("file with the key of the client's certificate")
    tls_hostname: str | None = _words(
        "host name expected in the server's certificate, where the address has another"
    )
    prefix: str = _option("genro", "first part of every subject", rules.subject(first=True), _NATS)
    connect_timeout: float = _option(
        5.0, "seconds that the first connection may take", rules.seconds(), _NATS
    )
    inline_limit: int = _option(
        1024**2,
        "bytes of a call, result or item above which it stays with its owner and is pulled in chunks, "
        "or of a task, above which it is stored in chunks; the server's max_payload is a limit too",
        rules.size(1024),
        _NATS,
    )
    max_payload_size: int = _option(
        4 * 1024**3,
        "bytes of a call, result or item that are sent or taken at most",
        rules.size(1024),
        _NATS,
    )
    key_file: str | None = _file(
        "file with the shared keys that sign all messages, one 'id:base64' a line: the first signs, all verify; "
        "None: GENRO_NATS_KEY, and without that nothing is signed"
    )
    replay_window: float = _option(
        60.0,
        "seconds by which the time in a signed call may differ from the clock here; within them none is taken twice",
        rules.seconds(),
        _NATS,
    )
    workers_timeout: float = _option(
        0.0,
        "seconds that a call waits while no worker serves its subject, as when a fleet is replaced",
        rules.seconds(zero=True),
        _NATS,
    )
    max_backlog: int = _option(
        100_000,
        "calls that one worker holds at most, running and waiting; it refuses more, and their callers "
        "send them again, or fail with overload='fail'",
        rules.whole(1, 1_000_000_000),
        _NATS,
    )
    max_backlog_size: int = _option(
        1024**3,
        "bytes that the calls and unread results of one worker take at most; beyond, it refuses calls as "
        "with max_backlog, but takes one of any size alone",
        rules.size(1024),
        _NATS,
    )
    compression: Literal["zstd", "lz4"] | None = _option(
        None,
        "how calls and their answers of 16 KiB and more are compressed, if they get smaller; None: not at all",
        optional(rules.choice("zstd", "lz4")),
        _NATS,
    )
    disconnect_timeout: float = _option(
        30.0, "seconds that a call waits out a lost connection", rules.seconds(zero=True), _NATS
    )

    def __post_init__(self) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, normalized(name, getattr(self, name)))

    def __repr__(self) -> str:
        changed = [name for name, known in _FIELDS.items() if getattr(self, name) is not known.default]
        return f"PoolOptions({', '.join(f'{name}={shown(name, getattr(self, name))}' for name in changed)})"

    @property
    def workers(self) -> int:
        """`max_workers`, or the number of usable CPUs where it is None."""
        return min(usable_cpus(), MAX_WORKERS) if self.max_workers is None else self.max_workers

    @classmethod
    def build(
        cls,
        kind: str,
        explicit: Mapping[str, Any],
        *,
        name: str | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the options of a pool of `kind` from those stated in `explicit`, defaults for the others.

        `name` is the pool's, for messages and the default subject; `origins` tells for options that
        didn't come from code which file or variable they came from.
        Raises ConfigurationError for an unknown option, a wrong value, or a lack of one that `kind` needs.
        """
        places = {option: _place(name, (origins or {}).get(option, "")) for option in explicit}
        for option, place in places.items():
            _require_known(option, place)
        checked = {option: normalized(option, value, places[option]) for option, value in explicit.items()}
        if kind in _NATS:
            _require_companions(checked, _place(name))
            checked["subject"] = checked.get("subject") or _default_subject(name)
        return cls(**checked)


_FIELDS: Final[Mapping[str, Field[Any]]] = {known.name: known for known in fields(PoolOptions)}
_COMPANIONS: Final = (("password", "user"), ("tls_key", "tls_cert"))


def describe_options() -> tuple[OptionInfo, ...]:
    """Return every option with its meaning, default and allowed values, in order."""
    return tuple(
        OptionInfo(
            name=name,
            doc=known.metadata["doc"],
            default=known.default,
            allowed=known.metadata["rule"].allowed,
            kinds=known.metadata["kinds"],
            secret=name in SECRETS,
        )
        for name, known in _FIELDS.items()
    )


def normalized(option: str, value: Any, place: str = "") -> Any:
    """Return `value` in the form that PoolOptions keeps, or raise ConfigurationError with `place` in it."""
    rule: Rule = _FIELDS[option].metadata["rule"]
    try:
        return rule.parse(value)
    except (ValueError, TypeError, OverflowError):
        pass  # chained, a rule's own error could show a secret
    raise ConfigurationError(
        f"Option {option!r}{place} is {shown(option, value)}: use {rule.allowed}.", option=option
    )


def _place(name: str | None, origin: str = "") -> str:
    pool = f" of pool {name!r}" if name else ""
    return f"{pool} ({origin})" if origin else pool


def _require_known(option: str, place: str) -> None:
    if option not in _FIELDS:
        hint = did_you_mean(option, _FIELDS)
        raise ConfigurationError(
            f"Unknown option {option!r}{place}.{hint} Options: {', '.join(_FIELDS)}.", option=option
        )


def _require_companions(given: Mapping[str, Any], place: str) -> None:
    for option, needed in _COMPANIONS:
        if given.get(option) is not None and given.get(needed) is None:
            raise ConfigurationError(
                f"Option {option!r}{place} needs option {needed!r} beside it.", option=needed
            )


def _default_subject(name: str | None) -> str:
    if name is None:
        raise ConfigurationError(
            "A pool of kind 'nats' needs option 'subject', such as 'tasks.heavy'.", option="subject"
        )
    try:
        return str(normalized("subject", f"tasks.{name}"))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"The name of pool {name!r} makes no valid subject: pass option 'subject' too. {error}",
            option="subject",
        ) from None
