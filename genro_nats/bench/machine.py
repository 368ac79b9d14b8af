"""Where and when the benchmark ran."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Self

from genro_nats.bench.peer import has_uvloop

__all__ = ["Machine"]

_PACKAGES: Final = ("genro-nats", "nats-py", "anyio", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts without which figures can't be compared. ``load``: the one-minute average at the start."""

    date: str
    cpus: int
    model: str
    platform: str
    python: str
    load: float
    uvloop: bool
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Self:
        """This machine, now."""
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            cpus=os.cpu_count() or 1,
            model=_model(),
            platform=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            load=os.getloadavg()[0],
            uvloop=has_uvloop(),
            versions=_versions(),
        )

    def lines(self) -> list[str]:
        """The header of a report."""
        return [
            f"{self.date}   {self.cpus} CPUs, {self.model}   {self.platform}",
            f"{self.python}   {', '.join(f'{name} {number}' for name, number in self.versions.items())}",
            f"load average at the start {self.load:.2f}; callers run on asyncio's own loop, the nats worker on "
            + ("uvloop, and so does the echo of the second floor" if self.uvloop else "asyncio's own loop"),
        ]


def _model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or "unknown model"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
