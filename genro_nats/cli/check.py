"""``genro-nats worker --check``: do the workers of this user on this machine serve?"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from genro_nats.server.paths import shared_directory

__all__ = ["check"]

_LIMIT: Final = 3.0  # seconds that a worker has to answer


def check(subjects: Collection[str] = ()) -> int:
    """Ask each of them, or those that serve one of ``subjects``; 0 if there are some and all serve, else 1."""
    found = [facts for facts in _answers() if _concerns(facts, subjects)]
    for facts in found:
        print(f"worker {facts['worker']} is {facts['state']}: {', '.join(facts['subjects'])}")
    if not found:
        of = f" of {', '.join(subjects)}" if subjects else ""
        print(f"genro-nats: no worker{of} runs here, for this user", file=sys.stderr)
    return 0 if found and all(facts["state"] == "serving" for facts in found) else 1


def _concerns(facts: dict[str, Any], subjects: Collection[str]) -> bool:
    """One that can't say what it serves concerns everybody."""
    return not subjects or not facts["subjects"] or not set(subjects).isdisjoint(facts["subjects"])


def _answers() -> Iterator[dict[str, Any]]:
    for path in sorted((shared_directory() / "workers").glob("*.sock")):
        facts = _ask(path)
        if facts is not None:
            yield facts


def _ask(path: Path) -> dict[str, Any] | None:
    """What that worker says; None if it has ended."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_LIMIT)
        try:
            asking.connect(str(path))
            answer: dict[str, Any] = json.loads(_read(asking))
        except FileNotFoundError:
            return None  # it left this moment
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # killed before it could do that itself
            return None
        except (OSError, ValueError) as error:
            return {"worker": path.stem, "state": f"not answering ({error})", "subjects": []}
    return answer


def _read(asking: socket.socket) -> bytes:
    data = b""
    while piece := asking.recv(65536):
        data += piece
    return data
