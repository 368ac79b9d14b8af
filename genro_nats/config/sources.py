"""Where pools get moved: ``executors.toml`` and one environment variable per pool.

::

    [executors.heavy]                       GENRO_POOL_HEAVY=nats
    kind = "nats"                           GENRO_POOL_HEAVY='{"kind": "nats", "timeout": "30s"}'
    max_pending = 500

The file is ``executors.toml`` in the working directory, or the one named by ``GENRO_EXECUTORS``.
A variable wins over the file, option by option, and both win over the code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from genro_nats.config.files import parse_json, parse_toml, read_text
from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["BYPASS", "DEFAULT_FILE", "FILE", "ConfigSource", "Overrides", "bypass_from_env", "pool_variable"]

BYPASS: Final = "GENRO_EXECUTOR_BYPASS"
FILE: Final = "GENRO_EXECUTORS"
DEFAULT_FILE: Final = "executors.toml"
_TABLE: Final = "executors"
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_SWITCH: Final = {"1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
    ("", "0", "false", "no", "off"), False
)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What configuration says about one pool.

    `kind` is None and `options` empty where it says nothing. `origin` names the places that spoke,
    the strongest last, and is empty if none did; `origins` has the place of each option, and of "kind".
    """

    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origin: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)


class ConfigSource:
    """The configuration of one process: a TOML file, read once, and the environment.

    `path` replaces the search for the file, which then has to exist; `environ` replaces `os.environ`.
    Nothing is read before the first `for_pool`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._environ: Mapping[str, str] = os.environ if environ is None else environ

    def for_pool(self, name: str) -> Overrides:
        """Return what configuration says about pool `name`; its options are not validated here.

        Raises ConfigurationError, naming file or variable, for what can't be read or understood.
        """
        variable = pool_variable(name)
        layers = {
            f"{self._file_name}, [{_TABLE}.{name}]": self._tables.get(name),
            f"environment variable {variable}": _from_text(variable, self._environ.get(variable, "")),
        }
        return _layered({place: table for place, table in layers.items() if table is not None})

    @cached_property
    def _file(self) -> Path | None:
        chosen = self._path or self._environ.get(FILE)
        if chosen:
            return Path(os.path.expanduser(chosen))  # noqa: PTH111 - Path's raises for a user there isn't
        default = Path(DEFAULT_FILE)
        return default if default.exists() else None

    @property
    def _file_name(self) -> str:
        return str(self._file or DEFAULT_FILE)

    @cached_property
    def _tables(self) -> Mapping[str, Mapping[str, Any]]:
        if self._file is None:
            return {}
        named_by = f" (named by {FILE})" if self._path is None and self._environ.get(FILE) else ""
        where = f"{self._file_name}{named_by}"
        return _pool_tables(parse_toml(read_text(self._file, where), where), where)


def pool_variable(name: str) -> str:
    """Return the name of the environment variable of pool `name`: ``a-b`` has ``GENRO_POOL_A_B``."""
    return "GENRO_POOL_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def bypass_from_env(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether ``GENRO_EXECUTOR_BYPASS`` makes every pool run its calls inline.

    Raises ConfigurationError if it is neither a yes nor a no.
    """
    text = (os.environ if environ is None else environ).get(BYPASS, "")
    answer = _SWITCH.get(text.strip().lower())
    if answer is None:
        raise ConfigurationError(
            f"Environment variable {BYPASS} is {text[:40]!r}: use 1 or 0.", variable=BYPASS
        )
    return answer


def _pool_tables(document: Mapping[str, Any], where: str) -> Mapping[str, Mapping[str, Any]]:
    for key in document:
        if key != _TABLE:
            hint = did_you_mean(key, [_TABLE])
            raise ConfigurationError(
                f"{where}: unknown table [{key}]; pools are tables [{_TABLE}.<name>].{hint}"
            )
    pools = document.get(_TABLE, {})
    _require_table(pools, f"{where}: {_TABLE!r}", f"[{_TABLE}.<name>]")
    for name, table in pools.items():
        _require_table(table, f"{where}: '{_TABLE}.{name}'", f"[{_TABLE}.{name}] with kind and options")
    return dict(pools)


def _require_table(value: Any, where: str, wanted: str) -> None:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} is not a table: write {wanted}.")


def _from_text(variable: str, text: str) -> Mapping[str, Any] | None:
    word = text.strip()
    if not word:
        return None
    return {"kind": word} if _WORD.fullmatch(word) else parse_json(word, f"Environment variable {variable}")


def _layered(layers: Mapping[str, Mapping[str, Any]]) -> Overrides:
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for place, table in layers.items():
        _require_kind(table, place)
        merged.update(table)
        origins.update(dict.fromkeys(table, place))
    return Overrides(merged.pop("kind", None), merged, " and ".join(layers), origins)


def _require_kind(table: Mapping[str, Any], place: str) -> None:
    kind = table.get("kind", "inline")
    if not isinstance(kind, str) or not kind:
        raise ConfigurationError(
            f"{place}: 'kind' is not text: write the kind of executor, such as 'nats'.", option="kind"
        )
