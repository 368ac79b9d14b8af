"""Text of a file or variable to a mapping; errors name the place and never show its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genro_nats.errors import ConfigurationError

__all__ = ["parse_json", "parse_toml", "read_text"]


def read_text(path: Path, where: str) -> str:
    """Return the text of the file; ConfigurationError, beginning with `where`, if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"can't be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    # Raised out here, for the error that was caught holds the bytes, passwords among them.
    raise ConfigurationError(f"{where} {problem}.", path=str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the TOML document; ConfigurationError names `where` and the line."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ConfigurationError(f"{where} is not valid TOML: {problem}.")


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Return the JSON object; ConfigurationError names `where` and the line."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} (at line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    else:
        if isinstance(value, dict):
            return value
        problem = f"it is a JSON {type(value).__name__}"
    raise ConfigurationError(
        f"{where} is neither a kind of executor nor a JSON object such as "
        f'{{"kind": "nats", "timeout": 30}}: {problem}.'
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"key {twice!r} appears twice")
    return keys
