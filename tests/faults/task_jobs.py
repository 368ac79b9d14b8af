"""Functions that run as durable tasks: they note each execution, die, and take their worker along."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from typing import Any, NoReturn

from genro_nats import current_call
from tests.faults.durable import worker_pid
from tests.faults.jobs import note, wait_for


def work(path: str, key: object, seconds: float = 0.0) -> Any:
    """Note key and own pid, take some time, give the key back."""
    note(path, key)
    if seconds:
        time.sleep(seconds)
    return key


def work_item(item: tuple[str, object, float]) -> Any:
    """``work`` for ``enqueue_many``."""
    return work(*item)


def show_pid(path: str, release: str) -> str:
    """Note the child's pid and the attempt, run until a file exists."""
    note(path, f"{os.getpid()} {current_call().attempt}")
    wait_for(release, 30)
    return f"attempt {current_call().attempt}"


def kill_child(path: str) -> NoReturn:
    note(path, "child")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def kill_worker(path: str, after: float = 0.0) -> NoReturn:
    """Take the worker along."""
    note(path, "worker")
    time.sleep(after)
    os.kill(worker_pid(), signal.SIGKILL)
    time.sleep(30)
    raise AssertionError


def fail_once(path: str) -> int:
    """Fail in the first attempt."""
    note(path, "ran")
    if current_call().attempt == 1:
        raise ValueError("the first attempt")
    return current_call().attempt


def go_on(path: str, release: str, steps: int) -> list[Any]:
    """Checkpoint each step; the one that is met at the begin is noted."""
    call = current_call()
    done: list[Any] = list(call.checkpointed or [])
    note(path, f"begin {len(done)}")
    for step in range(len(done), steps):
        done.append(step)
        call.checkpoint(done)
        call.progress((step + 1) / steps, f"step {step}")
    note(path, "done")
    wait_for(release, 30)
    return done


def clock() -> float:
    return time.time()


def sometimes(path: str, key: object, seconds: float = 0.0) -> Any:
    """Mostly short."""
    return work(path, key, seconds)


def keep_attempt(path: str, directory: str) -> None:
    """Checkpoint the attempt's number once a file of that name exists, end once "end" does."""
    attempt = current_call().attempt
    note(path, f"begin {attempt}")
    wait_for(f"{directory}/{attempt}", 30)
    current_call().checkpoint(f"attempt {attempt}")
    note(path, f"kept {attempt}")
    wait_for(f"{directory}/end", 30)


def time_out() -> NoReturn:
    raise TimeoutError("mine")


def sum_of(data: bytes) -> str:
    """What shows that all of it came."""
    return hashlib.sha256(data).hexdigest()


def refuse(path: str, data: bytes) -> NoReturn:
    note(path, len(data))
    raise ValueError("as it was told")


def echo_when(path: str, release: str, data: bytes) -> bytes:
    """Note the size, run until a file exists, give the data back."""
    note(path, len(data))
    wait_for(release, 60)
    return data


def give_when(path: str, release: str, fill: int, size: int) -> bytes:
    note(path, "began")
    wait_for(release, 60)
    return bytes([fill]) * size


def keep_large(path: str, sizes: list[int], release: str) -> int:
    """Checkpoint and show so many bytes, one after the other; the size of the one that is met is noted."""
    call = current_call()
    met = call.checkpointed
    note(path, "none" if met is None else len(met))
    for number, size in enumerate(sizes):
        call.checkpoint(bytes([number]) * size)
        call.progress(number / 10, f"{number}", bytes([number]) * size)
        call.flush_progress()
    note(path, "kept")
    wait_for(release, 60)
    return len(met or b"")


def fail_with_checkpoint(data: bytes) -> tuple[int, Any]:
    """Leave a checkpoint in the first attempt, and give the one that is met in the second."""
    call = current_call()
    if call.attempt == 1:
        call.checkpoint("kept")
        raise ValueError("the first attempt")
    return len(data), call.checkpointed
