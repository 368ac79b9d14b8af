"""``--path``: code for workers from a directory or a wheel."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_nats.cli.main import main
from genro_nats.cli.wheel import unpacked
from tests.cli import samples
from tests.cli.conftest import Running, environment

CODE = "import os\nfrom shipped import words\n\ndef load():\n    os.environ['LOADED'] = words.WORD\n"


def make(path: Path, **more: str) -> Path:
    """A wheel with a package, and beside it what an installer would move up."""
    name = "shipped-1.2"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("shipped/__init__.py", "")
        wheel.writestr("shipped/jobs.py", CODE)
        wheel.writestr("shipped/words.py", "import beside\nWORD = 'yes, ' + beside.WORD\n")
        wheel.writestr(f"{name}.data/purelib/beside.py", "WORD = 'from the wheel'\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/METADATA", "Name: shipped\nVersion: 1.2\n")
        for inside, text in more.items():
            wheel.writestr(inside, text)
    return path


def test_a_worker_has_its_code_from_a_wheel(
    worker: Callable[..., Running],
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    wheel = make(tmp_path / "shipped-1.2-py3-none-any.whl")
    running = worker(
        "--url", "embedded", "--subject", "wheel", "--processes", "1", "--path", str(wheel),
        "--import", "shipped.jobs", "--init", "shipped.jobs:load",
    )  # fmt: skip
    running.logged("worker.ready")
    assert call("wheel", samples.loaded) == "yes, from the wheel"
    (copy,) = scratch.glob("genro-nats-wheel-*")
    assert copy.stat().st_mode & 0o077 == 0
    wheel.unlink()  # as when a new release replaces it: children that start later have the old one
    pid = call("wheel", samples.where, 0)[1]
    assert pid
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0
    assert list(scratch.glob("genro-nats-wheel-*")) == []


def test_its_metadata_is_found(tmp_path: Path) -> None:
    """The version of what runs can be asked, as if it were installed."""
    code = (
        "import sys; from genro_nats.cli.search_path import set_up_path; set_up_path((sys.argv[1],))\n"
        "from importlib.metadata import version; print(version('shipped'))"
    )
    wheel = make(tmp_path / "shipped-1.2-py3-none-any.whl")
    done = subprocess.run(
        [sys.executable, "-c", code, str(wheel)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment(),
    )
    assert (done.stdout, done.stderr) == ("1.2\n", "")


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    """Names that climb out of a wheel end up inside of its copy."""
    wheel = make(tmp_path / "evil-1-py3-none-any.whl", **{"../../escaped.py": "", "/absolute.py": ""})
    (target, _) = map(Path, unpacked(wheel))
    assert list(target.rglob("escaped.py")) == [target / "escaped.py"]
    assert not (target.parent / "escaped.py").exists()
    assert not Path("/absolute.py").exists()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("gone", None, "it isn't there"),
        ("gone.whl", None, "No such file"),
        ("file.txt", b"text", "neither a directory nor a wheel"),
        ("bad.whl", b"no zip file", "not a zip file"),
        ("empty.whl", b"PK\x05\x06" + bytes(18), "has no .dist-info/WHEEL"),
    ],
)
def test_what_is_no_wheel_is_refused(
    name: str, content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["worker", "--subject", "a", "--path", str(tmp_path / name)]) == 2
    assert why in capsys.readouterr().err
