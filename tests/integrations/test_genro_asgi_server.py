"""The mixin in this process: construction, errors, the lifespan protocol, lazy pools."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from genro_asgi import AsgiServer, BaseApplication, BaseServer, HTTPException, RoutedApplication
from genro_asgi.lifespan import FatalBootError

from genro_nats import BaseExecutor, ThreadExecutor
from genro_nats.errors import (
    CallTimeoutError,
    ConfigurationError,
    ExecutorClosedError,
    ExecutorError,
    ExecutorOverloadError,
    NoWorkersError,
)
from genro_nats.integrations.genro_asgi import ExecutorMixin, HttpOverloadError
from genro_nats.integrations.genro_asgi.errors import http_error
from tests.integrations import jobs
from tests.integrations.site import Server, Site

THREAD = {"kind": "thread", "max_workers": 1}


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


class Life:
    """One run of the lifespan protocol over a server."""

    def __init__(self, server: Any) -> None:
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.ensure_future(server(scope, self._inbox.get, self._outbox.put))

    async def say(self, what: str) -> dict[str, Any]:
        """Send ``lifespan.<what>``; the answer."""
        await self._inbox.put({"type": f"lifespan.{what}"})
        return await self._outbox.get()


# -- construction ---------------------------------------------------------------


def test_the_wrong_order_of_bases_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Write class Wrong\(ExecutorMixin, AsgiServer\)"):
        type("Wrong", (AsgiServer, ExecutorMixin), {})
    with pytest.raises(ConfigurationError, match=r"Write class Later\(Mine, BaseServer\)"):
        type("Later", (BaseServer, type("Mine", (ExecutorMixin,), {})), {})


def test_config_is_passed_on_positionally_and_pools_stand_beside_it() -> None:
    server = Server("default", executors={"pdf": THREAD})
    assert server.executor(name="pdf") is server.executors.get("pdf")
    assert server.executor("thread", name="pdf", max_workers=1).kind == "thread"
    assert list(server.get_executor_metrics()) == ["pdf"]


def test_bare_compositions_work_too() -> None:
    class Bare(ExecutorMixin, BaseServer):
        pass

    assert "pdf" in Bare(executors={"pdf": THREAD}).executors


def test_applications_may_ask_for_pools_while_the_server_is_made() -> None:
    class Asking(Server):
        def register_application(self, app: BaseApplication) -> None:
            assert self.executor(name="pdf").kind == "thread"
            super().register_application(app)

    assert Asking(applications=[Site], executors={"pdf": THREAD}, storage=[]).applications


@pytest.mark.parametrize(
    ("executors", "text"),
    [
        (["heavy"], "executors is a list: pass a mapping"),
        ({"heavy": "nats"}, r"executors\['heavy'\] is a str: pass a mapping"),
        ({"heavy": {"kind": "natz"}}, r"executors\['heavy'\]: Unknown executor type: 'natz'.*'nats'"),
        ({"heavy": {"kind": 1}}, r"executors\['heavy'\]: 'kind' is not text"),
        ({"heavy": {"max_worker": 1}}, r"executors\['heavy'\]: Unknown option 'max_worker'"),
        ({"heavy": {"max_workers": 0}}, r"executors\['heavy'\]: Option 'max_workers' of pool 'heavy' is 0"),
        ({"heavy": {"name": "x"}}, r"executors\['heavy'\] has an option 'name'"),
        ({"heavy": {1: 2}}, r"executors\['heavy'\] has an option whose name is not text"),
        ({1: {}}, r"executors\[1\]: the name of a pool is text"),
    ],
)
def test_wrong_executors_name_the_pool(executors: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Server(executors=executors)


@pytest.mark.parametrize("seconds", [-1, "5", float("nan"), float("inf"), True])
def test_a_wrong_drain_timeout_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="executor_drain_timeout"):
        Server(executor_drain_timeout=seconds)


def test_without_the_extra_the_error_names_it() -> None:
    code = "import sys; sys.modules['genro_asgi'] = None; import genro_nats.integrations.genro_asgi"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert 'pip install "genro-nats[genro]"' in done.stderr.splitlines()[-1]


# -- errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (ExecutorOverloadError("full", executor="x", retry_after=2.5), 429, [(b"retry-after", b"3")]),
        (NoWorkersError("none", subject="s"), 503, [(b"retry-after", b"1")]),
        (CallTimeoutError("late", timeout=1.0), 504, []),
    ],
)
def test_errors_keep_what_they_are_and_gain_a_status(
    error: ExecutorError, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    for answer in (http_error(error), pickle.loads(pickle.dumps(http_error(error)))):
        assert isinstance(answer, type(error))
        assert isinstance(answer, HTTPException)
        assert (answer.status, answer.headers, answer.detail) == (status, headers, str(error))
        assert (str(answer), answer.fields, answer.args) == (str(error), error.fields, error.args)
        assert http_error(answer) is answer
    assert copy.copy(http_error(error)).fields == error.fields


def test_other_errors_stay_as_they_are() -> None:
    error = ExecutorClosedError("shut")
    assert http_error(error) is error


def test_pools_of_the_server_stay_what_they_are() -> None:
    class Mine(BaseExecutor):
        async def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            raise ExecutorOverloadError("mine", retry_after=7)

        async def shutdown(self, wait: bool = True) -> None: ...

        @property
        def metrics(self) -> dict[str, Any]:
            return {}

    async def main() -> None:
        server = Server()
        thread = server.executor("thread", name="pdf", max_workers=1)
        assert isinstance(thread, ThreadExecutor)
        assert repr(thread) == "<ThreadExecutor 'pdf'>"
        assert await thread.submit(jobs.double, 2) == (4, os.getpid())
        server.executors.register_factory("mine", lambda name: Mine())
        mine = server.executor("mine", name="own")
        for call in (mine.submit(jobs.double, 2), mine(jobs.double)(2)):
            with pytest.raises(HttpOverloadError) as caught:
                await call
            assert caught.value.headers == [(b"retry-after", b"7")]
            assert type(caught.value.__cause__) is ExecutorOverloadError
        await server.executors.aclose()

    run(main)


# -- life -----------------------------------------------------------------------


def test_pools_start_lazily_without_a_lifespan() -> None:
    async def main() -> None:
        server = Server(
            applications=[Site], executors={"pdf": {"kind": "process", "max_workers": 1}}, storage=[]
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=server), base_url="http://site"
        ) as client:
            answer = await client.get("/double", params={"pool": "pdf", "x": 21})
            assert answer.json()["value"] == 42
        await server.executors.aclose()

    run(main)


def test_pools_live_from_startup_to_just_before_the_acknowledgement(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(executors={"pdf": THREAD}, storage=[])
        pdf, gate = server.executor(name="pdf"), tmp_path / "gate"
        life = Life(server)
        assert await life.say("startup") == {"type": "lifespan.startup.complete"}
        call = asyncio.ensure_future(pdf.submit(jobs.gate, str(gate)))
        while not pdf.metrics["pending"]:
            await asyncio.sleep(0)
        ending = asyncio.ensure_future(life.say("shutdown"))
        while True:  # until the drain has begun
            try:
                await pdf(timeout=0.001)(jobs.double)(1)
            except ExecutorClosedError:
                break
            except CallTimeoutError:
                await asyncio.sleep(0)
        assert not ending.done()
        gate.touch()
        assert await ending == {"type": "lifespan.shutdown.complete"}
        assert call.done()
        await life.task

    run(main)


class Starting(RoutedApplication):
    """Makes a pool in its startup; notes its own shutdown."""

    log: list[str]
    options: dict[str, Any]

    def on_startup(self) -> None:
        self.log.append("up")
        assert isinstance(self.server, Server)
        self.server.executor(**self.options)
        if self.options["name"] == "fatal":
            raise FatalBootError("no licence")

    def on_shutdown(self) -> None:
        self.log.append("down")


def starting(**options: Any) -> type[Starting]:
    return type("Mine", (Starting,), {"log": [], "options": options})


def test_a_pool_made_in_a_startup_hook_is_started_or_fails_the_boot() -> None:
    async def main() -> None:
        app = starting(kind="process", name="late", initializer="tests.integrations.jobs:nothing")
        life = Life(Server(applications=[app], executors={"pdf": THREAD}, storage=[]))
        answer = await life.say("startup")
        assert answer["type"] == "lifespan.startup.failed"
        assert "(in executor 'late')" in answer["message"]
        await life.task
        assert app.log == ["up", "down"]

    run(main)


def test_a_boot_that_fails_elsewhere_ends_the_pools() -> None:
    async def main() -> None:
        app = starting(kind="thread", name="fatal")
        server = Server(applications=[app], storage=[])
        life = Life(server)
        assert await life.say("startup") == {"type": "lifespan.startup.failed", "message": "no licence"}
        await life.task
        with pytest.raises(ExecutorClosedError):
            await server.executor(name="fatal").submit(jobs.double, 1)

    run(main)


def test_a_lifespan_cut_short_ends_the_pools() -> None:
    async def main() -> None:
        server = Server(executors={"pdf": THREAD}, storage=[])
        life = Life(server)
        await life.say("startup")
        life.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life.task
        with pytest.raises(ExecutorClosedError):
            await server.executor(name="pdf").submit(jobs.double, 1)

    run(main)
