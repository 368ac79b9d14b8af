"""Functions that these tests run as tasks; children import them."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextvars import ContextVar
from typing import Any

from genro_nats import current_call

user: ContextVar[str] = ContextVar("user", default="nobody")
events: dict[str, threading.Event] = {}
kept: list[Any] = [1]


def who() -> str:
    return user.get()


def where() -> str:
    return threading.current_thread().name


def wait_for(name: str) -> bool:
    """Blocks a thread of this process until the test sets the event."""
    return events[name].wait(10)


def mutate_checkpoint() -> Any:
    call = current_call()
    if call.attempt == 1:
        value = [1]
        call.checkpoint(value)
        value.append(2)
        raise ValueError("once")
    return call.checkpointed


def keep_unpicklable() -> None:
    current_call().checkpoint(threading.Lock())


def trace() -> str:
    return current_call().trace_id


def timeout() -> None:
    raise TimeoutError("the function's own")


def size(data: bytes) -> int:
    return len(data)


def fate(draw: float, deadly: bool) -> float:
    """By the draw: short, longer, failing once, failing always, or taking its process with it."""
    attempt = current_call().attempt
    if deadly and draw < 0.1 and attempt < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if draw > 0.9 or (draw > 0.7 and attempt == 1):
        raise ValueError(draw)
    time.sleep(draw / 50)
    return draw
