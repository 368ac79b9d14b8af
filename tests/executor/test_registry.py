"""The registry: one pool per name, configuration, all at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import genro_nats
from genro_nats import (
    BaseExecutor,
    ConfigSource,
    ConfigurationError,
    ExecutorRegistry,
    InlineExecutor,
    LocalExecutor,
    NatsExecutor,
    ProcessExecutor,
    ThreadExecutor,
)
from genro_nats.executor.carry import Carrier
from tests.executor import samples


@pytest.fixture
def registry(tmp_path: Path) -> ExecutorRegistry:
    path = tmp_path / "executors.toml"
    path.write_text('[executors.moved]\nkind = "thread"\nmax_pending = 3\n')
    return ExecutorRegistry(ConfigSource(path, {}))


def test_kinds_and_names(registry: ExecutorRegistry) -> None:
    assert type(registry.executor()) is ProcessExecutor
    assert registry.executor().name == "default"
    assert type(registry.executor("local", name="l")) is ProcessExecutor
    nats = registry.executor("nats", name="heavy", subject="tasks.heavy")
    assert isinstance(nats, NatsExecutor)
    assert (nats.address, nats.map_concurrency) == ("genro.tasks.heavy", 64)
    assert registry.remote("tasks.light", timeout=3) is registry.executor(name="tasks.light")
    assert registry.executor(name="heavy") is nats
    assert (len(registry), "heavy" in registry, sorted(registry)[0]) == (4, True, "default")
    assert registry.get("heavy") is nats
    assert registry.get("nobody") is None
    assert "'heavy': nats" in repr(registry)
    registry.executors.clear()
    assert len(registry) == 4
    assert registry.all_metrics()["heavy"]["mode"] == "nats"


def test_conflicts_and_mistakes(registry: ExecutorRegistry) -> None:
    registry.executor("inline", name="a", timeout=3)
    registry.executor("inline", name="a")
    with pytest.raises(ConfigurationError, match="timeout"):
        registry.executor("inline", name="a", timeout=4)
    with pytest.raises(ConfigurationError, match="kind"):
        registry.executor("thread", name="a")
    with pytest.raises(ValueError, match=r"Unknown executor type: 'odd'\. Available types: inline"):
        registry.executor("odd", name="b")
    with pytest.raises(ConfigurationError, match="Did you mean 'timeout'"):
        registry.executor("inline", name="b", timeuot=3)
    assert "b" not in registry


def test_configuration_moves_pools(registry: ExecutorRegistry) -> None:
    pool = registry.executor("inline", name="moved", timeout=2)
    assert isinstance(pool, ThreadExecutor)
    assert (pool.options.max_pending, pool.options.timeout) == (3, 2)
    assert registry.executor("inline", name="moved") is pool


def test_the_former_names(registry: ExecutorRegistry) -> None:
    made: list[dict[str, Any]] = []

    def factory(**options: Any) -> BaseExecutor:
        made.append(options)
        return InlineExecutor(options["name"])

    registry.register_factory("custom", factory)
    pool = registry.get_or_create("mine", "custom", region="eu")
    assert made == [{"name": "mine", "region": "eu"}]
    assert registry.get_or_create("mine") is pool
    assert registry.get_or_create("mine", executor_type="custom", region="eu") is pool
    assert type(registry.get_or_create("other")) is ProcessExecutor
    registry.register_factory("thread", factory)
    assert isinstance(registry.executor(name="moved"), InlineExecutor)


def test_threads_get_the_same_pool(registry: ExecutorRegistry) -> None:
    barrier = threading.Barrier(4)

    def ask(_: int) -> BaseExecutor:
        barrier.wait(5)
        return registry.executor("inline", name="x")

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(ask, range(4)))) == 1


@pytest.mark.anyio
async def test_all_are_started_and_shut_down_even_if_some_fail(registry: ExecutorRegistry) -> None:
    class Broken(InlineExecutor):
        async def _close(self, wait: bool) -> None:
            raise OSError("stuck")

    registry.register_factory("broken", Broken)
    pools = [
        registry.executor(kind, name=f"n{i}")
        for i, kind in enumerate(["broken", "thread", "broken", "inline"])
    ]
    await registry.start_all()
    with pytest.raises(ExceptionGroup, match="failed to shut down: 'n0', 'n2'") as caught:
        await registry.shutdown_all()
    assert "(in executor 'n0')" in caught.value.exceptions[0].__notes__
    assert all(pool._closing is not None for pool in pools)  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_pool_that_can_not_start_is_named(registry: ExecutorRegistry) -> None:
    def no_model() -> None:
        raise OSError("no model")

    registry.executor("inline", name="good")
    registry.executor("inline", name="bad", initializer=no_model)
    with pytest.raises(OSError, match="no model") as caught:
        async with registry:
            pass
    assert caught.value.__notes__ == ["(in executor 'bad')"]


@pytest.mark.anyio
async def test_pools_open_again(registry: ExecutorRegistry) -> None:
    pool = registry.executor("thread", name="x")
    for _ in range(2):
        async with registry:
            assert await pool.submit(len, "ab") == 2


def test_carried_variables() -> None:
    carrier = Carrier([samples.tenant])
    assert carrier.read() == []
    token = samples.tenant.set("eu")
    assert carrier.read() == [("tests.executor.samples:tenant", "eu")]
    samples.tenant.reset(token)
    with pytest.raises(ConfigurationError, match="'inner' in carry= stands in no importable module"):
        Carrier([ContextVar("inner")]).read()


def test_the_package_is_light() -> None:
    code = (
        "import sys, genro_nats; genro_nats.ExecutorRegistry().executor('nats', name='x')(len); "
        "print(sorted({'nats', 'trio', 'anyio', 'concurrent.futures.thread'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_every_public_name_is_there() -> None:
    for name in genro_nats.__all__:
        assert getattr(genro_nats, name) is not None
    assert set(genro_nats.__all__) <= set(dir(genro_nats))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        genro_nats.nothing  # noqa: B018
    assert LocalExecutor.kind == "process"
