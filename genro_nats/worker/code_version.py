"""Which version of the user's code a worker runs: as stated, or the commit of the checkout it stands in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["CODE_VERSION", "code_version"]

CODE_VERSION: Final = "GENRO_NATS_CODE_VERSION"
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")
_SHOWN: Final = 12  # characters of a commit
_LONGEST: Final = 64  # characters of a stated version


def code_version(stated: str = "", directory: str | Path = ".") -> str:
    """``stated``, else the variable GENRO_NATS_CODE_VERSION, else the commit checked out there, else ""."""
    given = stated or os.environ.get(CODE_VERSION, "")
    return given[:_LONGEST] if given else _commit(Path(directory))


def _commit(directory: Path) -> str:
    # Read, not asked of git: that may be absent, slow, or configured by whoever owns the directory.
    try:
        here = directory.resolve()
        for parent in (here, *here.parents):
            if (parent / ".git").exists():
                return _head(_git_directory(parent / ".git"))[:_SHOWN]
    except (OSError, ValueError):
        pass
    return ""


def _git_directory(entry: Path) -> Path:
    if entry.is_dir():
        return entry
    return (entry.parent / entry.read_text().partition("gitdir:")[2].strip()).resolve()  # of a worktree


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head if _COMMIT.fullmatch(head) else ""
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    roots = [git, (git / common.read_text().strip()).resolve()] if common.exists() else [git]
    for root in roots:
        if (root / name).is_file() and _COMMIT.fullmatch(found := (root / name).read_text().strip()):
            return found
    for root in roots:
        packed = root / "packed-refs"
        for line in packed.read_text().splitlines() if packed.exists() else ():
            commit, _, ref = line.partition(" ")
            if ref == name and _COMMIT.fullmatch(commit):
                return commit
    return ""
