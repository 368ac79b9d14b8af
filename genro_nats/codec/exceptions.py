"""Exceptions as structure: what crosses a process border is data, never a bare pickled exception.

Each exception of the chain becomes a node: its type's path, its arguments and
state as pickles of their own (either may not survive), its text, notes,
members (of a group), and the numbers of its cause and context. The traceback
travels as text, once, for the whole chain.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any, Final, TypeVar

from genro_nats.codec import values
from genro_nats.codec.error_text import (
    BUILTIN,
    attribute,
    bases,
    qualname,
    shortened,
    text_of,
    traceback_of,
    type_name,
)
from genro_nats.codec.frame import Buffer
from genro_nats.codec.modules import is_main
from genro_nats.errors import DecodeError, RemoteError, RemoteTraceback

__all__ = ["dump_error", "last_link", "load_error", "rebuilt", "structure"]

MAX_NODES: Final = (
    100  # of one chain; what is beyond is only in the traceback's text, and counted in a group's notes
)
_LOOKED_AT: Final = ("__cause__", "__context__", "__suppress_context__", "__traceback__")

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

Node = dict[str, Any]
Dumps = Callable[[Any], bytes]
Loads = Callable[[Any], Any]
FindType = Callable[[Node], Any]


def dump_error(error: BaseException) -> bytes:
    """An exception with its causes, contexts, notes and traceback, as a pickle of plain data. Never raises."""
    return values.dumps_whole(structure(error, _pickled))


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
    told = _Teller(dumps)
    try:
        told.add(error)
        nodes = told.nodes
    except BaseException:  # of whatever else its classes may do, or out of memory
        nodes = [_bare(error)]
    return {"nodes": nodes, "traceback": shortened(traceback_of(error, told.errors))}


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
        _set(last_link(built[0]), "__cause__", RemoteTraceback(text))
        return built[0]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DecodeError(f"An error reply without the expected structure: {error!r}") from error


class _Teller:
    """Nodes of an exception and what it refers to, and the exceptions they are of."""

    def __init__(self, dumps: Dumps) -> None:
        self.nodes: list[Node] = []
        self.errors: list[BaseException] = []
        self._numbers: dict[int, int] = {}
        self._dumps = dumps

    def add(self, error: BaseException | None) -> int | None:
        """The number of an exception; None past the limit, and for None."""
        if error is None or id(error) in self._numbers:
            return None if error is None else self._numbers[id(error)]
        if len(self.nodes) >= MAX_NODES:
            return None
        number = self._numbers[id(error)] = len(self.nodes)
        node: Node = {}
        self.nodes.append(node)
        self.errors.append(error)
        members = [self.add(member) for member in _members(error)]
        node |= _facts(error, self._dumps, _left_out(members.count(None)))
        node["group"] = members
        node["cause"] = self.add(attribute(error, "__cause__"))
        node["context"] = self.add(attribute(error, "__context__"))
        return number


def _facts(error: BaseException, dumps: Dumps, left_out: list[str]) -> Node:
    """What a node says of its exception alone; ``left_out``: notes that tell what it lacks."""
    kind = type(error)
    args, state = _parts(error, dumps, left_out)
    return {
        "type": type_name(kind),
        "class": _class(kind) if dumps is _pickled else None,
        "args": args,
        "state": state,
        "text": shortened(text_of(error)),
        "notes": [*(_attempt(_notes, error) or ()), *left_out],
        "suppress": attribute(error, "__suppress_context__"),
    }


def _bare(error: BaseException) -> Node:
    """The node of an exception of which nothing more can be told."""
    node: Node = {"type": type_name(type(error)), "class": None, "args": None, "state": None}
    node |= {"text": shortened(text_of(error)), "notes": [], "suppress": False}
    return {**node, "group": [], "cause": None, "context": None}


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if not issubclass(type(error), BaseExceptionGroup):  # isinstance would ask its __class__
        return ()
    return attribute(error, "exceptions", BaseExceptionGroup)  # type: ignore[no-any-return]


def _left_out(count: int) -> list[str]:
    if not count:
        return []
    what = "1 more exception was" if count == 1 else f"{count} more exceptions were"
    return [f"{what} left out (limit {MAX_NODES})"]


def _class(kind: type) -> bytes | None:
    """The pickled class of an exception that nobody could import."""
    module, _, name = type_name(kind).partition(":")
    return _attempt(_pickled, kind) if is_main(module) or "<locals>" in name else None


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    found = list.copy(notes) if isinstance(notes, list) else []
    return [shortened(note) for note in found if issubclass(type(note), str)]


def _parts(error: BaseException, dumps: Dumps, left_out: list[str]) -> tuple[bytes | None, bytes | None]:
    """The arguments and state as bytes; None for what can't travel."""
    args, state = _attempt(_content, error) or (None, None)
    if args is None:
        return None, None
    if left_out:
        state = {**(state or {}), "__notes__": [*(state or {}).get("__notes__", ()), *left_out]}
    return _attempt(dumps, args), _attempt(dumps, state)


def _content(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """The arguments and the state, read past what its class may have put in their place."""
    kind = type(error)
    if issubclass(kind, BaseExceptionGroup):
        args = (attribute(error, "message", BaseExceptionGroup),)
        state = attribute(error, "__dict__")
    else:
        # The built-in base knows what belongs to it (OSError's filename, ImportError's name).
        reduced: Any = _builtin_base(kind).__reduce__(error)
        args, state = reduced[1], reduced[2] if len(reduced) > 2 else None
    return args, {**(state or {}), **_slots(error)} or None


def _slots(error: BaseException) -> dict[str, Any]:
    """The values that its classes keep in ``__slots__``."""
    found: dict[str, Any] = {}
    for kind in bases(type(error)):
        if kind not in BUILTIN and "__slots__" in vars(kind):
            for name, slot in vars(kind).items():
                with contextlib.suppress(AttributeError):  # it holds nothing
                    if type(slot) is MemberDescriptorType and name not in found:
                        found[name] = slot.__get__(error)
    return found


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in bases(kind) if base in BUILTIN)


def _pickled(value: Any) -> bytes:
    return values.dumps_whole(value)


def _attempt(make: Callable[[_Given], _Made], value: _Given) -> _Made | None:
    try:
        return make(value)
    except BaseException:  # a __reduce__ or property may raise anything
        return None


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
                return _honest(_restore(base.__new__(kind, message, members), state))
            if node["group"]:
                raise TypeError("none of its members could be sent")
            error = base.__new__(kind, *args)
            base.__init__(error, *args)
            return _honest(_restore(error, state))
        except Exception as why:
            return _stand_in(node, self._text, why)


def _restore(error: BaseException, state: dict[Any, Any] | None) -> BaseException:
    # Neither a __setstate__ of the user's, which may expect what __init__ did, nor a __setattr__ or property.
    for name, value in (state or {}).items():
        slot = _slot(type(error), name)
        if slot is None:
            attribute(error, "__dict__")[name] = value
        else:
            slot.__set__(error, value)
    return error


def _slot(kind: type[BaseException], name: str) -> Any:
    """Where a value of that name is kept, if not in ``__dict__``: in a slot, or by a built-in base."""
    builtin = bases(_builtin_base(kind))
    for base in bases(kind):
        found = vars(base).get(name)
        if found is not None and (base in builtin or type(found) is MemberDescriptorType):
            return found
    return None


def _honest(error: BaseException) -> BaseException:
    """The exception, if it shows what it holds: those who pass it on look at that. Raises TypeError."""
    shown = _attempt(_shown, error)
    if shown is None or any(a is not b for a, b in zip(shown, _held(error), strict=True)):
        raise TypeError("its class hides what belongs to every exception")
    return error


def _shown(error: BaseException) -> tuple[Any, ...]:
    return (error.__class__, *[getattr(error, name) for name in _LOOKED_AT])


def _held(error: BaseException) -> tuple[Any, ...]:
    return (type(error), *[attribute(error, name) for name in _LOOKED_AT])


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
        raise TypeError(f"{qualname(kind)} would end this process")
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


def last_link(error: BaseException) -> BaseException:
    """Where the chain that a traceback prints begins."""
    seen = {id(error)}
    while True:
        following = attribute(error, "__cause__")
        if following is None and not attribute(error, "__suppress_context__"):
            following = attribute(error, "__context__")
        if following is None or id(following) in seen:
            return error
        seen.add(id(following))
        error = following
