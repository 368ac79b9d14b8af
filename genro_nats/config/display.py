"""How a configured value is shown in messages: short, and without secrets."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["SECRETS", "masked_url", "shown"]

SECRETS: Final = frozenset({"password", "token"})
_MASK: Final = "***"
# Paths to keys are our own options and harmless; the options of custom kinds are unknown ground.
_HARMLESS: Final = frozenset({"nkey_seed_file", "credentials_file", "tls_key", "key_file"})
_SUSPECT: Final = re.compile(r"pass|pwd|secret|token|key|credential|auth|dsn", re.IGNORECASE)
# A comma starts another address only before a scheme: a password may hold a bare comma.
_NEXT_URL: Final = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")


def shown(option: str, value: Any) -> str:
    """Return a short text for the value of `option`; secrets, and URLs' user parts, are masked."""
    if value is None:
        return "None"
    if option in SECRETS or (option not in _HARMLESS and _SUSPECT.search(option)):
        return _MASK
    if option == "initargs":
        return _types_only(value)
    return _short.repr(_safe(value))


def masked_url(text: str) -> str:
    """Return `text`, one address or several, with user parts and queries replaced by ``***``."""
    return ",".join(_masked_one(part) for part in _NEXT_URL.split(text))


def _masked_one(url: str) -> str:
    login, at, rest = url.rpartition("@")
    scheme, sep, _ = (login or rest).partition("://")
    address = f"{scheme if sep else ''}{sep}{_MASK}@{rest}" if at else url
    before, query, _ = address.partition("?")
    return f"{before}?{_MASK}" if query else address


def _safe(value: Any) -> Any:
    """Return plain data without logins; for any other object a `_Bare` text, for its repr may tell all."""
    if isinstance(value, str):
        return masked_url(value) if "@" in value or "://" in value else value
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _MASK if _SUSPECT.search(str(key)) else _safe(item) for key, item in value.items()}
    return _Bare(_described(value))


def _described(value: Any) -> str:
    if isinstance(value, ContextVar):
        return f"<ContextVar {value.name}>"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}:{name}" if isinstance(name, str) else f"<{type(value).__qualname__}>"


class _Bare(str):
    def __repr__(self) -> str:
        return str(self)


def _types_only(value: Any) -> str:
    # Addresses with passwords are a usual argument of an initializer.
    if isinstance(value, list | tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return f"a {type(value).__name__}"


def _bounded_repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    return short


_short: Final = _bounded_repr()
