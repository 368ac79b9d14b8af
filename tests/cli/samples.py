"""Functions that the workers of these tests run, and initializers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from genro_nats import TaskNotFoundError, current_call

_LIMIT = 30.0  # seconds


def where(value: object) -> tuple[object, int]:
    return value, os.getpid()


async def where_async(value: object) -> tuple[object, int]:
    return value, os.getpid()


def hold(started: str, release: str) -> str:
    """Say that the call runs, and run until told."""
    Path(started).touch()
    deadline = time.monotonic() + _LIMIT
    while not Path(release).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return "released"


def load() -> None:
    os.environ["LOADED"] = "yes"


def loaded() -> str:
    return os.environ.get("LOADED", "no")


def fail() -> None:
    raise RuntimeError("no model here")


def double(value: int) -> int:
    return 2 * value


def refuse(text: str) -> None:
    raise ValueError(text)


class Mute:
    """Nothing can be shown of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


ODD = {"mute": Mute(), "long": 10**5000, "nan": [float("nan"), float("-inf")], "lone": "a\udcffb"}
TROUBLES: dict[str, Exception] = {
    "mute": MuteError(),
    "long": ValueError(10**5000),
    "found": TaskNotFoundError("mine", task_id="x"),
}


def odd(name: str) -> object:
    return ODD[name]


def trouble(name: str) -> None:
    try:
        ODD[name + " that is none"]
    except KeyError:
        raise TROUBLES[name]  # noqa: B904 - that leaves it a context and no cause


def advance_mute(folder: str) -> str:
    current_call().progress(0.5, "half the way", Mute())
    return hold(f"{folder}/started", f"{folder}/release")


def advance(folder: str) -> str:
    """Go half the way, and on when told."""
    current_call().progress(0.5, "half the way")
    return hold(f"{folder}/started", f"{folder}/release")
