"""What is known of a task, as plain data for machines and as words for people."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from genro_nats.codec import error_text
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = [
    "as_json",
    "moment",
    "one_line",
    "plain",
    "progress_text",
    "shown",
    "status_facts",
    "status_lines",
]

_LONG: Final = 100  # characters of an error in a list


def as_json(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), allow_nan=False)


def plain(value: Any) -> Any:
    """The value of a user as JSON can hold it; what it can't is shown as Python shows it."""
    try:
        return json.loads(json.dumps(value, default=shown), parse_constant=_no_number)
    except Exception:  # keys that are no texts, rings, numbers too long to print, classes of any kind
        return shown(value)


def _no_number(name: str) -> str:
    """NaN and the infinities, which only Python takes for JSON, as Python shows them."""
    return repr(float(name))


def shown(value: Any) -> str:
    """The value of a user as Python shows it, or why it can't. Never raises for what its class does."""
    try:
        return error_text.plain(repr(value))
    except Exception as broken:
        why = f"{error_text.qualname(type(broken))}: {error_text.text_of(broken)}"
        return f"<repr() of this {error_text.qualname(type(value))} raised {why}>"


def status_facts(status: TaskStatus) -> dict[str, Any]:
    """All fields; times are seconds since the epoch."""
    facts = {field.name: getattr(status, field.name) for field in fields(status)}
    progress = status.progress
    if progress is not None:
        facts["progress"] = {
            "fraction": progress.fraction,
            "text": progress.text,
            "data": plain(progress.data),
        }
    return facts


def moment(seconds: float | None) -> str:
    """A time, in this machine's zone; "-" for none."""
    if seconds is None:
        return "-"
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def one_line(text: str, limit: int = _LONG) -> str:
    """The text in one line of at most ``limit`` characters, none of which moves a terminal's cursor."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def progress_text(status: TaskStatus) -> str:
    """How far it is: "40% page 4 of 10", or nothing."""
    if status.progress is None:
        return ""
    return one_line(f"{status.progress.fraction:.0%} {status.progress.text}")


def status_lines(status: TaskStatus) -> list[tuple[str, str]]:
    """Names and values, those that say something."""
    ran = f"{status.worker} (pid {status.pid})" if status.worker else ""
    took = ""
    if status.started_at is not None and status.finished_at is not None:
        took = f" ({status.finished_at - status.started_at:.3f} s)"
    facts = [
        ("task", status.id),
        ("state", status.state.value),
        ("progress", progress_text(status)),
        ("attempts", str(status.attempts)),
        ("created", moment(status.created_at)),
        ("started", moment(status.started_at) if status.started_at else ""),
        ("finished", moment(status.finished_at) + took if status.finished_at else ""),
        ("next retry", moment(status.next_retry_at) if status.state is TaskState.SCHEDULED else ""),
        ("worker", ran),
        ("error", one_line(status.error, 2000)),
    ]
    return [(name, value) for name, value in facts if value not in ("", "-")]
