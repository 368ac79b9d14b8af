"""Which version of the user's code a worker shows: as stated, or the commit it stands in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from genro_nats.worker.code_version import CODE_VERSION, code_version


def git(directory: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=trunk")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=directory, check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed here")
    monkeypatch.delenv(CODE_VERSION, raising=False)
    found = tmp_path / "code"
    (found / "deep").mkdir(parents=True)
    git(found, "init", "-q")
    git(found, "commit", "-q", "--allow-empty", "-m", "one")
    return found


def test_the_commit_of_a_checkout(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")[:12]
    assert code_version(directory=checkout) == code_version(directory=checkout / "deep") == commit
    git(checkout, "pack-refs", "--all")
    assert code_version(directory=checkout) == commit
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "beside"))
    git(tmp_path / "beside", "commit", "-q", "--allow-empty", "-m", "two")
    two = git(tmp_path / "beside", "rev-parse", "HEAD")[:12]
    assert two != commit
    assert code_version(directory=tmp_path / "beside") == two
    git(checkout, "checkout", "-q", "--detach")
    assert code_version(directory=checkout) == commit


def test_what_is_stated_wins(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CODE_VERSION, "from the environment")
    assert code_version(directory=checkout) == "from the environment"
    assert code_version("2026.11", checkout) == "2026.11"
    assert len(code_version("x" * 1000)) == 64


def test_without_any_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CODE_VERSION, raising=False)
    bare = tmp_path / "bare"
    bare.mkdir()
    assert code_version(directory=bare) == ""
    (bare / ".git").write_text("gitdir: /no/such/place\n")
    assert code_version(directory=bare) == ""
    (bare / ".git").unlink()
    (bare / ".git").mkdir()
    (bare / ".git" / "HEAD").write_text("ref: ../../../../etc/hostname\n")
    assert code_version(directory=bare) == ""
