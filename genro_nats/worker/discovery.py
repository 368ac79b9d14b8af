"""Answers ``$SRV.PING``, ``$SRV.INFO`` and ``$SRV.STATS``, so that ``nats micro ls`` shows the fleet.

The protocol of NATS services (their ADR-32), answered from what is counted here anyway; nats-py's
own implementation would run calls one after the other.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from genro_nats.errors import ExecutorError
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.subjects import QUEUE_GROUP, is_inbox, pool_subjects, token

__all__ = ["Discovery", "service_version"]

_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")
_TYPE: Final = "io.nats.micro.v1.{}_response"
_DESCRIPTION: Final = "genro-nats worker: runs calls and durable tasks in child processes"


def service_version(version: str) -> str:
    """A version as services have them: three numbers."""
    found = _VERSION.match(version)
    return found[0] if found else "0.0.0"


class Discovery:
    """One worker as a NATS service; its endpoints are its pools. ``facts``: as of the worker."""

    def __init__(
        self, connection: Connection, prefix: str, worker: str, facts: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._worker = worker
        self._facts = facts
        self._started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", token(prefix))
        self.name = "genro-nats" if prefix == "genro" else f"genro-nats-{name}"

    async def start(self) -> None:
        """Answer from now on."""
        for scope in ("", f".{self.name}", f".{self.name}.{self._worker}"):
            await self._connection.subscribe(f"$SRV.*{scope}", self._asked)

    def _asked(self, message: Message) -> None:
        make = {"PING": self._ping, "INFO": self._info, "STATS": self._stats}.get(
            message.subject.split(".")[1]
        )
        if make is not None and is_inbox(self._prefix, message.reply):
            with contextlib.suppress(ExecutorError):
                self._connection.publish_now(message.reply, json.dumps(make()).encode())

    def _identity(self, what: str) -> dict[str, Any]:
        facts = self._facts()
        metadata = {key: str(facts[key]) for key in ("host", "pid", "code") if facts.get(key)}
        return {
            "type": _TYPE.format(what),
            "name": self.name,
            "id": self._worker,
            "version": service_version(str(facts["version"])),
            "metadata": {**metadata, "prefix": self._prefix},
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {**self._endpoint(pool), "metadata": {"slots": str(pool["slots"])}}
            for pool in self._facts()["pools"]
        ]
        return {**self._identity("info"), "description": _DESCRIPTION, "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        endpoints = [{**self._endpoint(pool), **_counts(pool)} for pool in self._facts()["pools"]]
        return {**self._identity("stats"), "started": self._started, "endpoints": endpoints}

    def _endpoint(self, pool: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": re.sub(r"[^A-Za-z0-9_-]", "_", pool["subject"]),
            "subject": pool_subjects(self._prefix, pool["subject"]).call,
            "queue_group": QUEUE_GROUP,
        }


def _counts(pool: Mapping[str, Any]) -> dict[str, Any]:
    done = pool["completed"] + pool["failed"]
    nanoseconds = int(pool["seconds"] * 1e9)
    return {
        "num_requests": pool["calls"],
        "num_errors": pool["failed"],
        "last_error": "",
        "processing_time": nanoseconds,
        "average_processing_time": nanoseconds // done if done else 0,
        "data": {key: pool[key] for key in ("slots", "busy", "queued")},
    }
