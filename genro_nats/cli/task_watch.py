"""A task's changes as they come: a progress bar, a line for each, or an object for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genro_nats.cli.tables import fancy
from genro_nats.cli.task_facts import as_json, one_line, progress_text, status_facts
from genro_nats.tasks.status import TaskStatus

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["bar", "watching"]

Shown = Callable[[TaskStatus], object]


@contextmanager
def watching(*, objects: bool) -> Iterator[Shown]:
    """Gives what is to be called with each status."""
    if objects:
        yield _object
    elif fancy():
        with bar() as shown:
            yield shown
    else:
        yield _line


def _object(status: TaskStatus) -> None:
    print(as_json(status_facts(status)), flush=True)


def _line(status: TaskStatus) -> None:
    what = one_line(status.error) if status.error else progress_text(status)
    print(f"{status.state.value:9}  attempt {status.attempts}  {what}".rstrip(), flush=True)


@contextmanager
def bar(console: Console | None = None) -> Iterator[Shown]:
    """A progress bar, on ``console`` if one is given; needs Rich."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console or Console(highlight=False)
    ) as progress:
        bar = progress.add_task("", total=1.0, text="")

        def shown(status: TaskStatus) -> None:
            fraction = status.progress.fraction if status.progress else 0.0
            text = status.error or (status.progress.text if status.progress else "")
            if status.settled and not status.error:
                fraction = 1.0
            again = f" (attempt {status.attempts})" if status.attempts > 1 else ""
            progress.update(
                bar,
                description=f"{status.state.value}{again}",
                completed=fraction,
                text=escape(one_line(text, 60)),
            )

        yield shown
