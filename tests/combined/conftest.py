"""One server with roles and a shared key; two workers each for a pool of any functions and one of registered ones."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.codec.signing import new_key
from genro_nats.testing import WorkerFactory
from tests.combined import jobs
from tests.secured import SecuredServer

KEY = "GENRO_NATS_KEY"
Caller = Callable[..., AbstractAsyncContextManager[NatsExecutor]]


class Site:
    """The server, its workers, and the shared key, which is in the environment of this process as of the workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key_file = directory / "keys"
        self.key_file.write_text(os.environ[KEY])
        self.server = SecuredServer(
            directory / "nats", "--subject", "any", "--subject", "data", "--subject", "late"
        )
        across = {key: value for key, value in self.server.options("caller").items() if key != "prefix"}
        os.environ["GENRO_POOL_ACROSS"] = json.dumps(across)
        shared = {"max_workers": 1, "cancel_grace": 0.3, "lease": 2.0, "imports": [jobs.__name__]}
        self.workers = WorkerFactory({**self.server.options("worker"), **shared})
        self.pids = {
            subject: [self.workers(subject, only_registered=subject == "data").pid for _ in range(2)]
            for subject in ("any", "data")
        }

    def options(self, user: str, subject: str) -> dict[str, Any]:
        codec = "data" if subject == "data" else "pickle"
        return {
            **self.server.options(user),
            "subject": subject,
            "lease": 2.0,
            "codec": codec,
            "timeout": 20.0,
        }

    @asynccontextmanager
    async def pool(self, user: str, subject: str, **given: Any) -> AsyncIterator[NatsExecutor]:
        async with NatsExecutor(user, **{**self.options(user, subject), **given}) as pool:
            yield pool

    def command(self, user: str) -> list[str]:
        """The options of a command that lead there."""
        found = self.server.options(user)
        return ["--url", found["url"], "--prefix", found["prefix"], "--nkey", found["nkey_seed_file"]]

    def stop(self) -> None:
        self.workers.stop()
        self.server.stop()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("site")
        patch.setenv(KEY, new_key("first"))
        patch.setenv("GENRO_POOL_ACROSS", "{}")
        site = Site(directory)
        yield site
        site.stop()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
