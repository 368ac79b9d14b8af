"""Where this process and its children import from."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["set_up_path"]


def set_up_path(directories: tuple[str, ...]) -> None:
    """The working directory and ``directories`` (``--path``) can be imported from."""
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    sys.path[:0] = [str(Path(directory).expanduser().absolute()) for directory in directories]
