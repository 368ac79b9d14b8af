"""``genro-nats auth init``: a nats-server configuration with a key and permissions for each role."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

from genro_nats.cli.auth_files import CONFIG, KeyFile, key_file, write_config
from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError
from genro_nats.server.secured import SecuredConfig, SecuredUser
from genro_nats.transport.identity import identity_of
from genro_nats.transport.roles import Role, permissions

__all__ = ["add_arguments", "run"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
_DEFAULT: Final = Path("nats")
_EPILOG: Final = """\
examples:
  genro-nats auth init
  genro-nats auth init /etc/nats --subject tasks.heavy --caller web --caller batch
  genro-nats auth init --host 0.0.0.0 --tls-cert server.crt --tls-key server.key

caller    calls and enqueues, and reads what became of its own tasks
worker    serves pools, and creates their streams
manager   cancels, drains workers, replays and drops dead letters, looks after streams
observer  reads states, lists and presence; all of them, arguments and outcomes included

Each user has a key: its seed is in a file of its own that nobody else can read, and is never
printed. Give each caller that should not read another's results a key of its own. Run the
command again with --force to change subjects or add users: keys that are there are kept.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "action", metavar="init", choices=("init",), help="this; genro-nats auth key has a help of its own"
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", type=Path, default=_DEFAULT, help="default: ./nats"
    )
    parser.add_argument("--prefix", default="genro", help="first part of every subject; default genro")
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="SUBJECT",
        help="pool that the users are bound to, repeated; default: all pools of the prefix",
    )
    for role in Role:
        parser.add_argument(
            f"--{role}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"a user with the role {role}, repeated; default: one, named {role}",
        )
    parser.add_argument("--host", default="127.0.0.1", help="where the server listens; default loopback")
    parser.add_argument("--port", type=int, default=4222, help="default 4222")
    parser.add_argument("--store-dir", type=Path, metavar="DIR", help="of JetStream; default: DIR/jetstream")
    parser.add_argument(
        "--monitoring", type=int, metavar="PORT", help="serve statistics over HTTP on loopback"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="the server's certificate: TLS only")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the key of that certificate")
    parser.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="authority that clients' certificates must come from"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the configuration; keys are kept")
    parser.add_argument("--new-keys", action="store_true", help="with --force: make all keys anew")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Write the files; the exit code.

    Raises:
        ConfigurationError: a wrong name, subject or TLS file, a missing extra, or a configuration
            that is there.
    """
    names = _names(arguments)
    _check(arguments)
    directory = arguments.directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = {
            name: key_file(directory, name, renew=arguments.force and arguments.new_keys) for name in names
        }
        config = _config(arguments, directory, names, keys)
        file = write_config(directory, config)
    except OSError as error:
        raise ConfigurationError(f"The files can't be written: {error}") from error
    _show(arguments, config, file, names, keys)
    return 0


def _names(arguments: argparse.Namespace) -> dict[str, Role]:
    """The role of each user."""
    found: dict[str, Role] = {}
    for role in Role:
        for name in getattr(arguments, role) or [str(role)]:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(f"--{role} {name!r}: letters, digits, '-' and '_' make a name.")
            if name in found:
                raise ConfigurationError(
                    f"Two users are named {name!r}: each needs a name and key of its own."
                )
            found[name] = role
    return found


def _check(arguments: argparse.Namespace) -> None:
    for subject in arguments.subject or ["any"]:
        PoolOptions.build("nats", {"subject": subject, "prefix": arguments.prefix})
    if arguments.new_keys and not arguments.force:
        raise ConfigurationError("--new-keys locks out who has the old ones: state --force too.")
    if (arguments.directory / CONFIG).exists() and not arguments.force:
        raise ConfigurationError(
            f"{arguments.directory / CONFIG} exists: state --force to overwrite it (keys are kept)."
        )
    cert, key, ca = arguments.tls_cert, arguments.tls_key, arguments.tls_ca
    if (cert is None) != (key is None) or (ca is not None and cert is None):
        raise ConfigurationError("TLS takes --tls-cert and --tls-key together, and --tls-ca with them.")
    for file in filter(None, (cert, key, ca)):
        if not file.is_file():
            raise ConfigurationError(f"{file} is no file: check --tls-cert, --tls-key and --tls-ca.")
    _check_address(arguments.host, arguments.port, arguments.monitoring)


def _check_address(host: str, port: int, monitoring: int | None) -> None:
    if not _HOST.fullmatch(host):
        raise ConfigurationError(f"--host {host!r}: state a name or an address, without a port.")
    for option, number in (("--port", port), ("--monitoring", monitoring)):
        if number is not None and not 1 <= number <= 65535:
            raise ConfigurationError(f"{option} is {number}: use 1 to 65535.")
    if port == monitoring:
        raise ConfigurationError(f"--port and --monitoring are both {port}: each needs one of its own.")


def _config(
    arguments: argparse.Namespace, directory: Path, names: dict[str, Role], keys: dict[str, KeyFile]
) -> SecuredConfig:
    workers = [identity_of(keys[name].public) for name, role in names.items() if role is Role.WORKER]

    def user(name: str, role: Role) -> SecuredUser:
        public = keys[name].public
        allowed = permissions(
            role, arguments.prefix, arguments.subject, user=identity_of(public), workers=workers
        )
        return SecuredUser(name, role, public, allowed.publish, allowed.subscribe, allowed.answers)

    def place(path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    return SecuredConfig(
        arguments.host,
        arguments.port,
        (arguments.store_dir or directory / "jetstream").absolute(),
        tuple(user(name, role) for name, role in names.items()),
        arguments.monitoring,
        place(arguments.tls_cert),
        place(arguments.tls_key),
        place(arguments.tls_ca),
    )


def _show(
    arguments: argparse.Namespace,
    config: SecuredConfig,
    file: Path,
    names: dict[str, Role],
    keys: dict[str, KeyFile],
) -> None:
    scheme = "nats" if config.tls_cert is None else "tls"
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104 - compared, not bound
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.port}"
    if arguments.json:
        print(json.dumps(_facts(arguments, file, url, names, keys)))
        return
    first = {role: name for name, role in reversed(names.items())}
    subject = arguments.subject[0] if arguments.subject else "tasks.heavy"
    worker, caller = keys[first[Role.WORKER]].path, keys[first[Role.CALLER]].path
    prefix = "" if arguments.prefix == "genro" else f" --prefix {arguments.prefix}"
    stated = "" if arguments.prefix == "genro" else f", prefix={arguments.prefix!r}"
    print(f"Wrote {file}, and the seeds of these users:")
    for name, role in names.items():
        kept = "" if keys[name].made else "  (kept)"
        if keys[name].opened:
            kept = "  (kept; others could read it until now: --new-keys makes new ones)"
        print(f"  {role:9} {keys[name].path}{kept}")
    print(
        "Start the server:\n"
        f"  nats-server -c {file}\n"
        "Start a worker, which creates the streams of its pools:\n"
        f"  genro-nats worker --url {url} --nkey {worker} --subject {subject}{prefix}\n"
        "Call it:\n"
        f"  executors.executor('nats', name='heavy', url={url!r}, subject={subject!r}{stated},\n"
        f"                     nkey_seed_file={str(caller)!r})\n"
        "A running server takes a changed file by: nats-server --signal reload"
    )


def _facts(
    arguments: argparse.Namespace, file: Path, url: str, names: dict[str, Role], keys: dict[str, KeyFile]
) -> dict[str, Any]:
    users = [
        {
            "name": name,
            "role": role,
            "nkey": keys[name].public,
            "seed_file": str(keys[name].path),
            "made": keys[name].made,
            "was_readable_by_others": keys[name].opened,
        }
        for name, role in names.items()
    ]
    return {
        "config": str(file),
        "url": url,
        "prefix": arguments.prefix,
        "subjects": arguments.subject,
        "users": users,
    }
