"""Where the embedded server's files live, and that nobody else can reach them.

Whoever reads the credentials, or puts other files in their place, can send a
pickle to this user's workers, and that is running code as this user. So the
directory is refused unless it is ours alone, all the way up.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from genro_nats.errors import ConfigurationError

__all__ = ["private_directory", "shared_directory", "shared_store", "write_private"]


def shared_directory() -> Path:
    """This user's directory: ``GENRO_NATS_HOME``, else in ``XDG_RUNTIME_DIR``, else the cache."""
    home = os.environ.get("GENRO_NATS_HOME")
    if home:
        return Path(home).expanduser().absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _usable(Path(runtime)):
        return Path(runtime) / "genro-nats"
    return _cache()


def shared_store() -> Path:
    """Where the shared server keeps its streams: on disk, as a runtime directory ends with the login."""
    base = shared_directory() if os.environ.get("GENRO_NATS_HOME") else _cache()
    return base / "store"


def _cache() -> Path:
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigurationError(f"{error}: set GENRO_NATS_HOME to a directory of your own") from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "genro-nats"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else home / ".cache") / "genro-nats"


def _usable(runtime: Path) -> bool:
    # After `sudo` the variable may still name the other user's directory.
    try:
        found = runtime.lstat()
    except OSError:
        return False
    return runtime.is_absolute() and _is_private(found) and os.access(runtime, os.W_OK | os.X_OK)


def _is_private(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def private_directory(path: Path) -> Path:
    """Make ``path`` (mode 0700) if it is missing, and return it with its parents' links resolved.

    Raises:
        ConfigurationError: it can't be made, is a symbolic link, belongs to another user, or
            is open to others; or another user could replace it from a directory above.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The resolved path is what is checked and then used: a link changed later changes nothing.
        path = path.parent.resolve(strict=True) / path.name
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"the directory {path} can't be used for the embedded server: {error}. {_WAY_OUT}", path=str(path)
        ) from error
    _check_own(path, found)
    for parent in path.parents:
        _check_parent(path, parent)
    return path


_WAY_OUT = "Give another directory, or set GENRO_NATS_HOME to one of your own"


def _check_own(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise _refused(path, f"it is {kind}")
    if found.st_uid != os.geteuid():
        raise _refused(path, f"it belongs to user id {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise _refused(path, f"its mode {mode:04o} lets other users in; run: chmod 700 {path}")


def _check_parent(path: Path, parent: Path) -> None:
    found = parent.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise _refused(path, f"{parent} above it belongs to user id {found.st_uid}, who could replace it")
    if found.st_mode & stat.S_ISVTX:
        return
    if found.st_mode & 0o002 or (found.st_mode & 0o020 and not _own_group(found.st_gid)):
        mode = stat.S_IMODE(found.st_mode)
        raise _refused(path, f"{parent} above it has mode {mode:04o}, so that other users could replace it")


def _own_group(group: int) -> bool:
    # Debian and Fedora give each user a group of the same name, and umask 002 makes
    # that group a writer of every directory.
    import grp
    import pwd

    try:
        return group == 0 or grp.getgrgid(group).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False


def _refused(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the directory {path} is refused, since credentials are kept in it: {why}. {_WAY_OUT}",
        path=str(path),
    )


def write_private(path: Path, text: str) -> None:
    """Put ``text`` in ``path`` (mode 0600) at once: a reader sees the old file or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
