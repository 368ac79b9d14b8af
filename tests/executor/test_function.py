"""Decorated functions: their surface, names, pickles, methods."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import pickle
from typing import Any

import anyio
import cloudpickle
import pytest

from genro_nats import (
    AsyncExecutor,
    BaseExecutor,
    CallTimeoutError,
    ConfigurationError,
    ExecutorError,
    Function,
    InlineExecutor,
    LocalExecutor,
    current_call,
)
from genro_nats.codec.functions import unwrap
from genro_nats.executor.detached import DetachedExecutor
from genro_nats.message import CallContext, running_call
from tests.executor import samples


@pytest.mark.anyio
async def test_the_ways_to_call() -> None:
    assert await samples.inc(1) == 2
    assert await samples.first.submit(samples.inc, 1) == 2
    assert samples.inc.local(1) == 2
    assert await samples.later.local(1) == 1
    assert [x async for x in samples.inc.map([1, 2])] == [2, 3]
    assert [x async for x in samples.count.stream(2)] == [0, 1]
    assert await samples.inc.options(timeout=1)(1) == 2
    with pytest.raises(ExecutorError, match=r"write 'await inc\(\.\.\.\)'"):
        samples.inc.call(1)
    with pytest.raises(ExecutorError, match=r"use count\.stream"):
        await samples.count(2)


def test_blocking_calls() -> None:
    assert samples.inc.call(1) == 2
    assert samples.later.call(1) == 1
    with pytest.raises(TypeError):
        samples.inc.call("a")  # type: ignore[arg-type]
    assert asyncio.run(samples.inc(1)) == 2


def test_blocking_calls_honour_their_timeout() -> None:
    @samples.first(timeout=0.02)
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        forever.call()


def test_it_looks_like_its_function() -> None:
    assert (samples.inc.__name__, samples.inc.__doc__, samples.inc.__module__) == (
        "inc",
        "Add one.",
        samples.__name__,
    )
    assert list(inspect.signature(samples.inc).parameters) == ["x"]
    assert inspect.iscoroutinefunction(samples.inc.__call__)
    assert repr(samples.inc) == "<Function tests.executor.samples:inc of pool 'first'>"
    assert samples.inc.name == "tests.executor.samples:inc"
    assert (samples.both.name, samples.both.aliases) == ("samples.both", ("old.both",))
    assert unwrap(samples.both) is samples.both.__genro_target__


def test_options_make_a_variant_and_keep_what_is_not_said() -> None:
    variant = samples.both.options(timeout=9).options(on_progress=print)
    assert variant is not samples.both
    assert (variant._options.timeout, variant._options.on_progress) == (9, print)
    assert (variant.name, variant.aliases) == (samples.both.name, samples.both.aliases)
    assert samples.both._options.timeout == 3


@pytest.mark.anyio
async def test_local_has_a_running_call() -> None:
    seen: list[float] = []

    @samples.first
    def look() -> str:
        current_call().progress(1.0)
        return current_call().pool

    @samples.first
    async def look_later() -> str:
        await anyio.sleep(0)
        return current_call().pool

    assert look.options(on_progress=lambda update: seen.append(update.fraction)).local() == "first"
    assert seen == [1.0]
    assert await look_later.local() == "first"


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("function", [samples.inc, samples.later, samples.count, samples.both], ids=repr)
def test_pickles_lead_to_the_modules_own_pool(pickler: Any, function: Function[Any, Any]) -> None:
    twin = pickle.loads(pickler.dumps(function))
    assert (twin.executor, twin.name, twin._options) == (function.executor, function.name, function._options)
    assert type(twin) is type(function)
    assert unwrap(twin) is unwrap(function)
    assert unwrap(copy.deepcopy(function)) is unwrap(function)


@pytest.mark.parametrize("function", [samples.wrapped, samples.first(lambda x: x)], ids=["wrapped", "lambda"])
@pytest.mark.anyio
async def test_without_its_pool_it_runs_inside_calls_of_that_name_only(function: Function[Any, Any]) -> None:
    twin = pickle.loads(cloudpickle.dumps(function))
    assert isinstance(twin.executor, DetachedExecutor)
    with pytest.raises(ExecutorError, match="'first' is not known in this process"):
        await twin(1)
    token = running_call.set(CallContext("00", pool="first", address="genro.tasks.first"))
    assert await twin(1) == 1
    assert twin.call(1) == 1
    running_call.reset(token)


def test_a_function_that_refers_to_its_own_wrapper_pickles() -> None:
    space: dict[str, Any] = {"pool": samples.first}
    exec("@pool\ndef down(n):\n    return n and down.call(n - 1)", space)
    del space["pool"]
    plain = pickle.loads(cloudpickle.dumps(unwrap(space["down"])))
    token = running_call.set(CallContext("00", pool="first"))
    assert plain(3) == 0
    running_call.reset(token)


@pytest.mark.anyio
async def test_methods_bind_and_pickle() -> None:
    shop = samples.Shop(3)
    assert await shop.price(2) == 6
    assert shop.price.local(2) == 6
    assert [x async for x in shop.price.map([1, 2])] == [3, 6]
    assert await samples.Shop.price(shop, 2) == 6
    assert await samples.Shop.free() == 0
    assert await samples.Shop.default() == 2  # type: ignore[call-arg]
    twin = pickle.loads(pickle.dumps(shop.price))
    assert await twin(2) == 6


def test_what_can_not_be_decorated() -> None:
    with pytest.raises(ConfigurationError, match="Put @staticmethod above"):
        samples.first(staticmethod(samples.plain))
    with pytest.raises(ConfigurationError, match="can't decorate a int"):
        samples.first(5)  # type: ignore[call-overload]


def test_an_incomplete_executor_can_not_be_made() -> None:
    class Half(BaseExecutor):
        async def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any: ...

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


@pytest.mark.anyio
async def test_the_former_surface_is_enough() -> None:
    class Mine(BaseExecutor):
        async def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        async def shutdown(self, wait: bool = True) -> None: ...

        @property
        def metrics(self) -> dict[str, Any]:
            return {}

    async with Mine() as pool:
        function = pool(samples.plain)
        assert await function(1) == 1
        assert [x async for x in function.map([1, 2])] == [1, 2]
        with pytest.raises(ExecutorError, match="can't stream"):
            pool(samples.count).stream(1)


def test_the_former_constructor() -> None:
    pool = LocalExecutor("old", 2, None, (), 7, True)
    assert (pool.name, pool.options.max_workers, pool.options.max_pending, pool.options.overload) == (
        "old",
        2,
        7,
        "fail",
    )
    assert LocalExecutor().options.max_pending == 100


@pytest.mark.parametrize("timeout", ["5", 0, -1, True, math.inf, math.nan, 1e300, 10**400])
def test_a_timeout_that_makes_no_sense(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds above 0"):
        samples.inc.options(timeout=timeout)


def test_single_options_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'timeout'"):
        InlineExecutor("x", timeuot=3)


def test_a_deadline_is_named_as_stated_after_a_wait() -> None:
    """What a call waited for admission is taken from its time, not from what its error says."""

    async def main() -> None:
        async with AsyncExecutor("x", max_pending=1) as pool:
            first = asyncio.create_task(pool.submit(asyncio.sleep, 0.2))
            await asyncio.sleep(0)
            with pytest.raises(CallTimeoutError, match=r"within 0\.6 s") as late:
                await pool(timeout=0.6)(asyncio.sleep)(30)
            assert late.value.timeout == 0.6
            await first

    asyncio.run(main())
