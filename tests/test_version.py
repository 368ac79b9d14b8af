"""The package's version, installed or not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import genro_nats

PRINT = "import sys; sys.path.insert(0, sys.argv[1]); import genro_nats; print(genro_nats.__version__)"


def test_an_installed_package_has_its_version() -> None:
    assert genro_nats.__version__ == version("genro-nats")


def test_a_copied_package_says_that_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "genro_nats").symlink_to(Path(genro_nats.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PRINT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("0+unknown", "")
