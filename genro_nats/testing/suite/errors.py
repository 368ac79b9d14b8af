"""Conformance: what a caller gets when a function raises, or can't be run."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import pytest

from genro_nats.errors import CodecError, FunctionNotFoundError, RemoteError, RemoteTraceback
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, SuiteBase

__all__ = ["ErrorTests"]


def chain_of(error: BaseException) -> list[BaseException]:
    """An exception and its causes."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


class ErrorTests(SuiteBase):
    """The user's own exceptions, and ours."""

    async def test_type_arguments_notes_and_causes(self, pool: BaseExecutor) -> None:
        with pytest.raises(ValueError, match="outer") as caught:
            await pool.submit(samples.fail_with_cause)
        error = caught.value
        assert type(error) is ValueError
        assert error.args == ("outer", 42)
        assert error.__notes__ == ["a note from afar"]
        assert isinstance(error.__cause__, KeyError)
        assert error.__cause__.args == ("inner",)

    async def test_the_traceback_shows_where_it_was_raised(self, pool: BaseExecutor) -> None:
        with pytest.raises(ValueError, match="outer") as caught:
            await pool.submit(samples.fail_with_cause)
        assert "in fail_deep" in "".join(traceback.format_exception(caught.value))
        if Can.COPY not in self.lacks:
            last = chain_of(caught.value)[-1]
            assert isinstance(last, RemoteTraceback)
            assert "in fail_deep" in last.text

    async def test_async_functions_raise(self, pool: BaseExecutor) -> None:
        with pytest.raises(LookupError, match="async"):
            await pool.submit(samples.fail_async)

    async def test_an_exception_with_an_init_of_its_own(self, pool: BaseExecutor) -> None:
        with pytest.raises(samples.Fussy) as caught:
            await pool.submit(samples.fail_fussy)
        assert caught.value.args == ("code 7",)
        assert caught.value.code == 7

    async def test_one_that_cannot_be_rebuilt(self, pool: BaseExecutor) -> None:
        self.need(Can.COPY)
        with pytest.raises(RemoteError, match="has a lock") as caught:
            await pool.submit(samples.fail_unportable)
        assert caught.value.type_name == f"{samples.__name__}:Unportable"
        assert "has a lock" in caught.value.text
        assert "in fail_unportable" in caught.value.traceback

    async def test_exit_ends_the_call_only(self, pool: BaseExecutor) -> None:
        with pytest.raises(RemoteError, match="SystemExit: 3"):
            await pool.submit(samples.leave, 3)
        assert await pool.submit(samples.add, 1) == 2

    @pytest.mark.parametrize("function", [samples.stop, samples.stop_async])
    async def test_stop_iteration_arrives_as_a_coroutine_raises_it(
        self, pool: BaseExecutor, function: Callable[[int], Any]
    ) -> None:
        with anyio.fail_after(10), pytest.raises(RuntimeError, match="raised StopIteration") as caught:
            await pool.submit(function, 3)
        assert any(isinstance(e, StopIteration) and e.args == (3,) for e in chain_of(caught.value))
        assert await pool.submit(samples.add, 1) == 2

    async def test_recursion_ends_the_call_only(self, pool: BaseExecutor) -> None:
        with pytest.raises(RecursionError):
            await pool.submit(samples.recurse)
        assert await pool.submit(samples.add, 1) == 2

    async def test_wrong_arguments(self, pool: BaseExecutor) -> None:
        with pytest.raises(TypeError, match="add"):
            await pool.submit(samples.add)
        assert await pool.submit(samples.add, 1) == 2

    async def test_an_argument_that_cannot_be_pickled_is_named(self, pool: BaseExecutor) -> None:
        self.need(Can.COPY)
        with pytest.raises(CodecError, match=r"argument 'b' of .*samples:add") as caught:
            await pool.submit(samples.add, 1, b=threading.Lock())
        assert caught.value.argument == "b"
        assert await pool.submit(samples.add, 1) == 2

    async def test_a_function_that_cannot_be_pickled(self, pool: BaseExecutor) -> None:
        self.need(Can.COPY)
        lock = threading.Lock()
        with pytest.raises(CodecError, match="can't be sent"):
            await pool.submit(lambda: lock)

    async def test_a_result_that_cannot_be_pickled(self, pool: BaseExecutor) -> None:
        self.need(Can.COPY)
        with pytest.raises(CodecError, match=r"result of .*samples:make_lock"):
            await pool.submit(samples.make_lock)
        assert await pool.submit(samples.add, 1) == 2

    async def test_an_unimportable_module(self, pool: BaseExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.need(Can.IMPORT)
        ghost = ModuleType("conformance_ghost")
        exec("def there(): return 1", ghost.__dict__)  # noqa: S102 - a module only this process has
        monkeypatch.setitem(sys.modules, "conformance_ghost", ghost)
        with pytest.raises(FunctionNotFoundError, match="conformance_ghost"):
            await pool.submit(ghost.there)
        assert await pool.submit(samples.add, 1) == 2

    async def test_an_unknown_function(self, pool: BaseExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.need(Can.IMPORT)

        def late() -> None: ...

        late.__module__, late.__qualname__ = samples.__name__, "late"
        monkeypatch.setattr(samples, "late", late, raising=False)
        with pytest.raises(FunctionNotFoundError, match="late"):
            await pool.submit(late)
        assert await pool.submit(samples.add, 1) == 2
