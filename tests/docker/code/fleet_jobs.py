"""What the fleet of these tests runs: jobs that leave a mark for each time they began."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

MARKS = Path("/tmp/marks")


def mark(number: int, seconds: float) -> tuple[int, str]:
    """Note that it began, work, and say where."""
    MARKS.mkdir(exist_ok=True)
    with (MARKS / str(os.getpid())).open("a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number, socket.gethostname()
