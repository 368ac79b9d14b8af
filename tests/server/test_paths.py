"""The directory of credentials is refused unless it is ours alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from genro_nats.errors import ConfigurationError
from genro_nats.server.config import quote
from genro_nats.server.paths import private_directory, shared_directory, shared_store, write_private

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_missing_directory_is_made_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(made) == mode(made.parent) == 0o700


@pytest.mark.parametrize("bits", [0o701, 0o710, 0o750, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "d"
    path.mkdir()
    path.chmod(bits)
    with pytest.raises(ConfigurationError, match=rf"mode {bits:04o}.*chmod 700.*GENRO_NATS_HOME"):
        private_directory(path)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        private_directory(tmp_path / "link")


def test_a_link_above_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert private_directory(tmp_path / "link" / "d") == tmp_path.resolve() / "real" / "d"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigurationError, match="can't be used"):
        private_directory(tmp_path / "f")


def test_a_replaceable_parent_is_refused_but_a_sticky_one_is_not(tmp_path: Path) -> None:
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="could replace it"):
        private_directory(parent / "d")
    parent.chmod(0o1777)
    assert private_directory(parent / "d").is_dir()


@needs_root
@pytest.mark.parametrize("which", [".", "d"])
def test_another_users_directory_is_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "top" / "d").mkdir(parents=True)
    (tmp_path / "top" / "d").chmod(0o700)
    os.chown(tmp_path / "top" / which, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to user id 12345"):
        private_directory(tmp_path / "top" / "d")


def test_where_the_shared_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("GENRO_NATS_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert shared_directory() == runtime / "genro-nats"
    assert shared_store().parent.name == "genro-nats" and runtime not in shared_store().parents
    runtime.chmod(0o755)
    assert shared_directory() == shared_store().parent
    monkeypatch.setenv("GENRO_NATS_HOME", str(tmp_path / "own"))
    assert (shared_directory(), shared_store()) == (tmp_path / "own", tmp_path / "own" / "store")


def test_a_private_file_replaces_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "f").symlink_to(victim)
    write_private(tmp_path / "f", "secret")
    assert victim.read_text() == "mine"
    assert ((tmp_path / "f").read_text(), mode(tmp_path / "f")) == ("secret", 0o600)


def test_quoted_values() -> None:
    assert quote('$a "b" \\ c\n\x00é') == '"$a \\"b\\" \\\\ c\\x0a\\x00é"'
