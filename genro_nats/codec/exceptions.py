"""Exceptions as structure: what crosses a process border is data, never a bare pickled exception.

Each exception of the chain becomes a node: its type's path, its arguments and
state as pickles of their own (either may not survive), its text, notes,
members (of a group), and the numbers of its cause and context. The traceback
travels as text, once, for the whole chain.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from typing import Any, Final

from genro_nats.codec import values
from genro_nats.codec.frame import Buffer
from genro_nats.codec.modules import is_main
from genro_nats.errors import DecodeError, RemoteError, RemoteTraceback

__all__ = ["dump_error", "load_error", "rebuilt", "structure"]

MAX_NODES: Final = 100  # of one chain; what is beyond is only in the traceback's text
MAX_TEXT: Final = 64 * 1024  # characters of a text or traceback; the middle is left out

Node = dict[str, Any]
Dumps = Callable[[Any], bytes]
Loads = Callable[[Any], Any]
FindType = Callable[[Node], Any]


def dump_error(error: BaseException) -> bytes:
    """An exception with its causes, contexts, notes and traceback, as a pickle of plain data. Never raises."""
    body, _ = values.dumps(structure(error, _pickled))
    return body


def load_error(body: Buffer) -> BaseException:
    """The exception in what ``dump_error`` gave. Unpickles: only for bytes that are trusted.

    Raises:
        DecodeError: the bytes are no such structure.
    """
    return rebuilt(values.loads(body), values.loads, _find_type)


def structure(error: BaseException, dumps: Dumps) -> dict[str, Any]:
    """An exception with all that belongs to it, as plain data. Never raises.

    ``dumps``: makes bytes of arguments and state, or raises where they can't travel.
    """
    nodes: list[Node] = []
    _node(error, nodes, {}, dumps)
    return {"nodes": nodes, "traceback": _shorten(_format(error))}


def rebuilt(data: Any, loads: Loads, find_type: FindType) -> BaseException:
    """The exception again, the remote traceback as the cause of its chain's last link.

    An exception is rebuilt without running an ``__init__`` of the user's; one
    that can't be rebuilt comes as ``RemoteError`` with all its texts.

    Raises:
        DecodeError: the data are no such structure.
    """
    try:
        nodes, text = data["nodes"], str(data["traceback"])
        built = _Builder(nodes, text, loads, find_type).all()
        for error, node in zip(built, nodes, strict=True):
            _link(error, node, built)
        _set(_last_link(built[0]), "__cause__", RemoteTraceback(text))
        return built[0]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DecodeError(f"An error reply without the expected structure: {error!r}") from error


def _node(error: BaseException, nodes: list[Node], seen: dict[int, int], dumps: Dumps) -> int | None:
    """Adds an exception and what it refers to; its number, or None past the limit."""
    if id(error) in seen:
        return seen[id(error)]
    if len(nodes) >= MAX_NODES:
        return None
    number = seen[id(error)] = len(nodes)
    kind = type(error)
    args, state = _parts(error, dumps)
    node: Node = {
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "class": _class(kind) if dumps is _pickled else None,
        "args": args,
        "state": state,
        "text": _shorten(_text(error)),
        "notes": _notes(error),
        "suppress": error.__suppress_context__,
    }
    nodes.append(node)
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    node["group"] = [_node(member, nodes, seen, dumps) for member in members]
    cause, context = error.__cause__, error.__context__
    node["cause"] = None if cause is None else _node(cause, nodes, seen, dumps)
    node["context"] = None if context is None else _node(context, nodes, seen, dumps)
    return number


def _class(kind: type) -> bytes | None:
    """The pickled class of an exception that nobody could import."""
    lonely = is_main(kind.__module__) or "<locals>" in kind.__qualname__
    return _attempt(_pickled, kind) if lonely else None


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    return [_shorten(note) for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _parts(error: BaseException, dumps: Dumps) -> tuple[bytes | None, bytes | None]:
    """The arguments and state as bytes; None for what can't travel."""
    args: Any = error.args
    state: Any = None
    if isinstance(error, BaseExceptionGroup):
        args = (error.message,)
        state = error.__dict__ or None
    else:
        # The built-in base knows what belongs to it (OSError's filename, ImportError's name).
        reduced = _builtin_base(type(error)).__reduce__(error)
        args, state = reduced[1], reduced[2] if len(reduced) > 2 else None
    return _attempt(dumps, args), _attempt(dumps, state)


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(c for c in kind.__mro__ if c.__module__ == "builtins" and issubclass(c, BaseException))


def _pickled(value: Any) -> bytes:
    return values.dumps_whole(value)


def _attempt(dumps: Dumps, value: Any) -> bytes | None:
    try:
        return dumps(value)
    except Exception:
        return None


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


class _Builder:
    """Exceptions from nodes; the members of a group before the group."""

    def __init__(self, nodes: list[Node], text: str, loads: Loads, find_type: FindType) -> None:
        self._nodes = nodes
        self._text = text
        self._loads = loads
        self._find_type = find_type
        self._built: dict[int, BaseException] = {}
        self._begun: set[int] = set()

    def all(self) -> list[BaseException]:
        """One for each node. Raises what a wrong structure leads to."""
        if len(self._nodes) > MAX_NODES:
            raise ValueError(f"{len(self._nodes)} exceptions in one chain")
        return [self._one(number) for number in range(len(self._nodes))]

    def _one(self, number: int) -> BaseException:
        if number not in self._built:
            if number in self._begun:
                raise ValueError("a group within itself")
            self._begun.add(number)
            self._built[number] = self._new(self._nodes[number])
        return self._built[number]

    def _new(self, node: Node) -> BaseException:
        members = [self._one(n) for n in node["group"] if n is not None]
        try:
            kind = _checked(self._find_type(node), node)
            base = _builtin_base(kind)  # its own __new__ and __init__: none of the user's run
            if node["args"] is None or node["state"] is None:
                raise TypeError("its arguments or state could not be sent")
            args, state = self._loads(node["args"]), self._loads(node["state"])
            if members:
                (message,) = args
                return _restore(base.__new__(kind, message, members), state)
            error = base.__new__(kind, *args)
            base.__init__(error, *args)
            return _restore(error, state)
        except Exception as why:
            return _stand_in(node, self._text, why)


def _restore(error: BaseException, state: dict[Any, Any] | None) -> BaseException:
    # Neither a __setstate__ of the user's, which may expect what __init__ did, nor a __setattr__ or property.
    builtin = _builtin_base(type(error)).__mro__
    for name, value in (state or {}).items():
        slot = next((vars(kind)[name] for kind in builtin if name in vars(kind)), None)
        if slot is None:
            error.__dict__[name] = value
        else:
            slot.__set__(error, value)
    return error


def _find_type(node: Node) -> Any:
    if node["class"] is not None:
        return values.loads(node["class"])
    module, _, qualname = node["type"].partition(":")
    kind: Any = importlib.import_module(module)
    for part in qualname.split("."):
        kind = getattr(kind, part)
    return kind


def _checked(kind: Any, node: Node) -> type[BaseException]:
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
    for note in node.get("notes", ()):
        error.add_note(note)
    return error


def _link(error: BaseException, node: Node, built: list[BaseException]) -> None:
    if node["cause"] is not None:
        _set(error, "__cause__", built[node["cause"]])
    if node["context"] is not None:
        _set(error, "__context__", built[node["context"]])
    _set(error, "__suppress_context__", node["suppress"])


def _set(error: BaseException, name: str, value: Any) -> None:
    vars(BaseException)[name].__set__(error, value)  # past a __setattr__ of the user's


def _last_link(error: BaseException) -> BaseException:
    """Where the chain that a traceback prints begins."""
    seen = {id(error)}
    while True:
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None or id(following) in seen:
            return error
        seen.add(id(following))
        error = following
