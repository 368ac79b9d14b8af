"""What a pool finally is: configuration merged over the code's wishes, and conflicts between wishes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from genro_nats.config.display import shown
from genro_nats.config.kinds import ALIASES, DEFAULT_KIND, KINDS, known_kind
from genro_nats.config.options import PoolOptions, describe_options, normalized
from genro_nats.config.sources import ConfigSource
from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["Resolved", "conflict", "requested", "resolve"]

_DEFAULTS: Final[Mapping[str, Any]] = {info.name: info.default for info in describe_options()} | {
    "kind": DEFAULT_KIND
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A pool ready to be built.

    `options` is None for a kind that isn't ours: its factory takes `merged`, all options stated anywhere,
    as they were stated. `requested` is what the code passed, for `conflict`. `origin` names the
    configuration that had a say, or is "code".
    """

    kind: str
    options: PoolOptions | None
    merged: Mapping[str, Any] = field(repr=False)
    requested: Mapping[str, Any] = field(repr=False)
    origin: str


def resolve(
    name: str,
    kind: str | None,
    code_options: Mapping[str, Any],
    source: ConfigSource,
    *,
    kinds: Iterable[str] = KINDS,
    known: Collection[str] = KINDS,
) -> Resolved:
    """Return what pool `name` is to be: the environment over the file over the code; without a kind, process.

    `kinds` are all kinds there are, without aliases. Only those in `known` get their options validated:
    leave out a kind whose factory isn't ours. Raises ConfigurationError for an unknown kind, an unknown
    option, a wrong value, and configuration that can't be read.
    """
    available = tuple(kinds)
    overrides = source.for_pool(name)
    asked = requested(kind, code_options, available)
    chosen = overrides.kind or asked.get("kind", DEFAULT_KIND)
    final = known_kind(chosen, available, overrides.origins.get("kind", ""))
    merged = {**code_options, **overrides.options}
    ours = final in known
    options = PoolOptions.build(final, merged, name=name, origins=overrides.origins) if ours else None
    return Resolved(final, options, merged, asked, overrides.origin or "code")


def requested(kind: str | None, options: Mapping[str, Any], kinds: Iterable[str] = KINDS) -> dict[str, Any]:
    """Return what code passed explicitly, its kind (aliases resolved) among it; for `conflict`.

    Raises ConfigurationError for an unknown kind.
    """
    return dict(options) if kind is None else {**options, "kind": known_kind(kind, kinds)}


def conflict(name: str, first: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if `again` asks for pool `name` otherwise than `first` did.

    Both are what code passed explicitly (see `requested`): options left out of `again` are not compared,
    one left out of `first` was asked for with its default. The text shows both values, secrets masked.
    """
    for option, value in again.items():
        before = first.get(option, _DEFAULTS.get(option, _MISSING))
        if not _same(option, before, value):
            raise ConfigurationError(
                _conflict_text(name, option, before, value), executor=name, option=option
            )


def _conflict_text(name: str, option: str, before: Any, value: Any) -> str:
    old = f"without {option}" if before is _MISSING else f"with {option}={shown(option, before)}"
    new = f"{option}={shown(option, value)}"
    other = " (another one)" if old == f"with {new}" else ""
    hint = did_you_mean(option, _DEFAULTS) if before is _MISSING else ""
    return (
        f"Executor {name!r} was first asked for {old}, now with {new}{other}.{hint} Pass the same again, "
        f"or only the name to get the pool as it is, or another name for another pool."
    )


def _same(option: str, before: Any, value: Any) -> bool:
    one, other = _comparable(option, before), _comparable(option, value)
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # arrays and the like refuse a plain yes or no
        return False


def _comparable(option: str, value: Any) -> Any:
    if option == "kind":
        return ALIASES.get(value, value)
    try:
        return normalized(option, value)
    except (KeyError, ConfigurationError):  # an option of a kind that isn't ours
        return value


class _Missing:
    """What an option of a custom kind is where the code didn't pass it."""


_MISSING: Final = _Missing()
