"""What the demonstration shows: with Rich on a terminal, or nothing but JSON at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from genro_nats.cli.demo_run import Outcome
from genro_nats.cli.task_watch import bar
from genro_nats.errors import ConfigurationError
from genro_nats.tasks.status import TaskStatus

__all__ = ["RichShow", "Show", "SilentShow"]

Told = Callable[[Outcome], object]


class Show(Protocol):
    """Tells what happens."""

    def say(self, text: str) -> None: ...
    def running(self, title: str, total: int) -> Any: ...
    def outcome(self, outcome: Outcome) -> None: ...
    def task(self) -> Any: ...


class SilentShow:
    """For ``--json``: nothing on the way."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def running(self, title: str, total: int) -> Iterator[Told]:
        """Nothing."""
        yield lambda outcome: None

    def outcome(self, outcome: Outcome) -> None:
        """Nothing."""

    @contextmanager
    def task(self) -> Iterator[Callable[[TaskStatus], object]]:
        """Nothing."""
        yield lambda status: None


class RichShow:
    """Progress bars and tables. Raises ConfigurationError without the extra ``cli``."""

    def __init__(self) -> None:
        try:
            from rich.console import Console
        except ImportError:
            raise ConfigurationError(
                'genro-nats demo shows its progress with Rich: pip install "genro-nats[cli,embedded]", '
                "or use --json."
            ) from None
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)

    @contextmanager
    def running(self, title: str, total: int) -> Iterator[Told]:
        """A progress bar; gives what is to be called after each result."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f} calls/s"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(title, total=total, rate=0.0)

            def told(outcome: Outcome) -> None:
                elapsed = progress.tasks[0].elapsed
                done = len(outcome.results)
                progress.update(bar, completed=done, rate=done / elapsed if elapsed else 0.0)

            yield told

    @contextmanager
    def task(self) -> Iterator[Callable[[TaskStatus], object]]:
        """A progress bar; gives what is to be called with each status of the task."""
        with bar(self._console) as shown:
            yield shown

    def outcome(self, outcome: Outcome) -> None:
        """Time, digest, and a table of where the calls ran."""
        from rich.table import Table

        self.say(f"  {len(outcome.results):,} calls in {outcome.seconds:.2f} s, {outcome.rate:,.0f} calls/s")
        self.say(f"  digest {outcome.digest}")
        table = Table("host", "pid", "calls", title=f"where it ran ({outcome.kind})", title_justify="left")
        for (host, pid), calls in outcome.places.most_common():
            table.add_row(host, str(pid), f"{calls:,}")
        self._console.print(table)
