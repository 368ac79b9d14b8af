"""Exceptions as structure: what crosses a process border is data, never a bare pickled exception.

Each exception of the chain becomes a node: its type's path, its arguments and
state as pickles of their own (either may not survive), its text, notes,
members (of a group), and the numbers of its cause and context. The traceback
travels as text, once, for the whole chain.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any, Final

from genro_nats.codec import values
from genro_nats.codec.frame import Buffer
from genro_nats.errors import DecodeError, RemoteError, RemoteTraceback

__all__ = ["dump_error", "load_error"]

MAX_NODES: Final = 100  # of one chain; what is beyond is only in the traceback's text
MAX_TEXT: Final = 64 * 1024  # characters of a text or traceback; the middle is left out

Node = dict[str, Any]


def dump_error(error: BaseException) -> bytes:
    """An exception with its causes, contexts, notes and traceback, as bytes. Never raises."""
    nodes: list[Node] = []
    _node(error, nodes, {})
    body, _ = values.dumps({"nodes": nodes, "traceback": _shorten(_format(error))})
    return body


def load_error(body: Buffer) -> BaseException:
    """The exception again, the remote traceback as the cause of its chain's last link.

    An exception is rebuilt without running an ``__init__`` of the user's; one
    that can't be rebuilt comes as ``RemoteError`` with all its texts.

    Raises:
        DecodeError: the bytes are no such structure.
    """
    data = values.loads(body)
    try:
        nodes, text = data["nodes"], data["traceback"]
        built = [_build_leaf(node, text) for node in nodes]
        for number, node in enumerate(nodes):
            if node["group"]:
                built[number] = _build_group(node, built, text)
        for error, node in zip(built, nodes, strict=True):
            _link(error, node, built)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise DecodeError(f"An error reply without the expected structure: {error!r}") from error
    _last_link(built[0]).__cause__ = RemoteTraceback(text)
    return built[0]


def _node(error: BaseException, nodes: list[Node], seen: dict[int, int]) -> int | None:
    """Adds an exception and what it refers to; its number, or None past the limit."""
    if id(error) in seen:
        return seen[id(error)]
    if len(nodes) >= MAX_NODES:
        return None
    number = seen[id(error)] = len(nodes)
    kind = type(error)
    args, state = _parts(error)
    node: Node = {
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "class": _try_dumps(kind)
        if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__
        else None,
        "args": args,
        "state": state,
        "text": _shorten(_text(error)),
        "suppress": error.__suppress_context__,
    }
    nodes.append(node)
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    node["group"] = [_node(member, nodes, seen) for member in members]
    node["cause"] = _node(error.__cause__, nodes, seen) if error.__cause__ is not None else None
    node["context"] = _node(error.__context__, nodes, seen) if error.__context__ is not None else None
    return number


def _parts(error: BaseException) -> tuple[bytes | None, bytes | None]:
    """The pickled arguments and state; None for what can't be pickled."""
    args: Any = error.args
    state: Any = None
    if isinstance(error, BaseExceptionGroup):
        args = (error.message,)
        state = error.__dict__ or None
    else:
        # The built-in base knows what belongs to it (OSError's filename, ImportError's name).
        reduced = _builtin_base(type(error)).__reduce__(error)
        args, state = reduced[1], reduced[2] if len(reduced) > 2 else None
    return _try_dumps(args), _try_dumps(state)


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(c for c in kind.__mro__ if c.__module__ == "builtins" and issubclass(c, BaseException))


def _try_dumps(value: Any) -> bytes | None:
    try:
        body, buffers = values.dumps(value)
    except Exception:
        return None
    return body if not buffers else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<str() of this {type(error).__qualname__} raised {type(broken).__qualname__}>"


def _format(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return f"{type(error).__module__}.{type(error).__qualname__}: {_text(error)}\n(no traceback: formatting failed)"


def _shorten(text: str) -> str:
    # A lone surrogate in a text would make the whole reply unencodable.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - MAX_TEXT} characters left out ...]\n{text[-half:]}"


def _build_leaf(node: Node, text: str) -> BaseException:
    try:
        kind = _find_type(node)
        if node["args"] is None or node["state"] is None:
            raise TypeError("its arguments or state could not be pickled")
        if node["group"]:
            return BaseException()  # a placeholder: built once its members are
        args, state = values.loads(node["args"]), values.loads(node["state"])
        error = kind.__new__(kind, *args)
        _builtin_base(kind).__init__(error, *args)
        return _restore(error, state)
    except Exception as why:
        return _stand_in(node, text, why)


def _build_group(node: Node, built: list[BaseException], text: str) -> BaseException:
    members = [built[n] for n in node["group"] if n is not None]
    try:
        kind = _find_type(node)
        (message,) = values.loads(node["args"])
        return _restore(kind.__new__(kind, message, members), values.loads(node["state"]))
    except Exception as why:
        return _stand_in(node, text, why)


def _restore(error: BaseException, state: Any) -> BaseException:
    # BaseException's own: a user's __setstate__ may expect what __init__ did.
    if state:
        BaseException.__setstate__(error, state)
    return error


def _find_type(node: Node) -> type[BaseException]:
    if node["class"] is not None:
        kind = values.loads(node["class"])
    else:
        module, _, qualname = node["type"].partition(":")
        kind = importlib.import_module(module)
        for part in qualname.split("."):
            kind = getattr(kind, part)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError(f"{node['type']} is no exception type here")
    if not issubclass(kind, Exception):
        raise TypeError(f"{kind.__qualname__} would end this process")
    return kind


def _stand_in(node: Node, text: str, why: Exception) -> RemoteError:
    name = node["type"].removeprefix("builtins:").replace(":", ".")
    error = RemoteError(
        f"{name}: {node['text']}\n(the exception itself could not be rebuilt here: {why})",
        type_name=node["type"],
        text=node["text"],
        traceback=text,
    )
    return error


def _link(error: BaseException, node: Node, built: list[BaseException]) -> None:
    if node["cause"] is not None:
        error.__cause__ = built[node["cause"]]
    if node["context"] is not None:
        error.__context__ = built[node["context"]]
    error.__suppress_context__ = node["suppress"]


def _last_link(error: BaseException) -> BaseException:
    """Where the chain that a traceback prints begins."""
    seen = {id(error)}
    while True:
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None or id(following) in seen:
            return error
        seen.add(id(following))
        error = following
