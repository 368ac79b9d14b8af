"""What a child of a worker of registered functions finds, and what it refuses by itself."""

from __future__ import annotations

import pickle
import sys
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genro_nats import DecodeError, ExecutorRegistry, NotAllowedError
from genro_nats.codec import data
from genro_nats.codec.datatypes import Types
from genro_nats.codec.frame import Flag, Frame, FrameKind
from genro_nats.codec.functions import FunctionCache
from genro_nats.codec.registered import RegisteredFunctions, require_listed
from genro_nats.errors import ConfigurationError
from genro_nats.worker.runner import open_call
from tests.faults import lying

pool = ExecutorRegistry().executor("inline", name="registered")
variable: ContextVar[int] = ContextVar("variable")


@pool(name="stable", aliases=["former"])
def decorated(a: int = 0) -> int:
    return a


def plain() -> None: ...


helper = Path


class Room:
    @pool
    def method(self) -> None: ...


def get(name: str, at: str = "", **given: Any) -> Any:
    return RegisteredFunctions(**given).get(name.encode(), None, at)


def test_decorated_functions_are_found_by_all_their_names() -> None:
    for name in (f"{__name__}:decorated", "stable", "former"):
        assert get(name)(5) == 5
    assert get("nothing", f"{__name__}:decorated")(6) == 6
    assert get(f"{__name__}:Room.method")


def test_a_class_that_raises_when_it_is_looked_at_hides_none() -> None:
    with pytest.raises(RuntimeError):
        _ = lying.OddClass.__module__
    assert get("stable")(5) == 5


def test_listed_ones_are_found_and_no_others() -> None:
    with pytest.raises(NotAllowedError, match=r"--allow .*:plain"):
        get(f"{__name__}:plain")
    assert get(f"{__name__}:plain", allow=[f"{__name__}:plain"]) is plain
    every = [f"{__name__}:*"]
    assert get(f"{__name__}:plain", allow=every) is plain
    for name in ("helper", "pytest.exit", "pool.shutdown", "Room", "Frame"):
        with pytest.raises(NotAllowedError):
            get(f"{__name__}:{name}", allow=every)
    with pytest.raises(NotAllowedError):
        get("pathlib:Path", allow=every)


def test_a_module_imported_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RegisteredFunctions()
    with pytest.raises(NotAllowedError):
        cache.get(b"late", None)
    late = ModuleType("late_module")
    late.__dict__["f"] = pool(name="late")(plain)
    monkeypatch.setitem(sys.modules, "late_module", late)
    assert cache.get(b"late", None) is plain


def test_only_the_first_call_may_be_the_parents_own() -> None:
    mine = f"{__name__}:plain"
    cache = RegisteredFunctions(initial=mine)
    assert cache.get(mine.encode(), None) is plain
    with pytest.raises(NotAllowedError):
        cache.get(mine.encode(), None)
    other = RegisteredFunctions(initial=mine)
    with pytest.raises(NotAllowedError):
        other.get(b"os:system", None)
    with pytest.raises(NotAllowedError):
        other.get(mine.encode(), None)


def test_what_is_listed_has_to_be_there() -> None:
    require_listed([f"{__name__}:plain", f"{__name__}:*"])
    with pytest.raises(ConfigurationError, match=f"{__name__}:missing"):
        require_listed([f"{__name__}:missing"])


def test_context_variables() -> None:
    name = f"{__name__}:variable"
    RegisteredFunctions(allow=[name]).require_carried([[name, 1]])
    RegisteredFunctions(allow=[f"{__name__}:*"]).require_carried([[name, 1]])
    with pytest.raises(NotAllowedError) as refused:
        RegisteredFunctions().require_carried([[name, 1]])
    assert refused.value.reason == "context"
    for odd in ("x", 5, [1], [[name]], [[1, 2]], [[name, 1, 2]]):
        with pytest.raises(DecodeError):
            RegisteredFunctions(allow=[name]).require_carried(odd)


class Proxy:
    """Stands in many a module: it must not be asked what it is."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")


def test_proxies_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ModuleType("odd_module")
    odd.__dict__["request"] = Proxy()
    monkeypatch.setitem(sys.modules, "odd_module", odd)
    monkeypatch.setitem(sys.modules, "odd_itself", Proxy())
    cache = RegisteredFunctions(allow=["odd_module:*"])
    assert cache.get(b"stable", None) is not None
    for name in ("odd_module:request", "odd_module:request.x", "odd_itself:x"):
        with pytest.raises(NotAllowedError):
            cache.get(name.encode(), None)
        with pytest.raises(NotAllowedError):
            cache.require_carried([[name, 1]])
        with pytest.raises(NotAllowedError):
            Types().find(name)


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return self.mark.touch, ()


def test_the_child_itself_opens_no_pickle(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap, name = pickle.dumps(Trap(mark)), f"{__name__}:decorated".encode()
    body = data.dumps_whole([[1], {}])
    for flags, content, buffers, reason in (
        (0, trap, [], "pickle"),
        (Flag.CHECKPOINT, trap, [trap], "pickle"),
        (Flag.BY_VALUE | Flag.DATA, body, [trap], "by_value"),
        (8192 | Flag.DATA, body, [trap], "by_digest"),
    ):
        frame = Frame(FrameKind.CALL, name=name, body=content, buffers=buffers, flags=flags)
        with pytest.raises(NotAllowedError) as refused:
            open_call(frame, RegisteredFunctions())
        assert refused.value.reason == reason
    with pytest.raises(NotAllowedError) as refused:
        RegisteredFunctions().get(name, trap)
    assert refused.value.reason == "by_value"
    frame = Frame(FrameKind.CALL, name=name, body=body, buffers=[trap], flags=Flag.DATA | Flag.CHECKPOINT)
    with pytest.raises(DecodeError):
        open_call(frame, RegisteredFunctions())
    assert not mark.exists()
    open_call(Frame(FrameKind.CALL, name=name, body=pickle.dumps(((Trap(mark),), {}))), FunctionCache())
    assert mark.exists(), "the trap is none"
