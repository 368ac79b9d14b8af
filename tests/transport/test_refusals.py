"""What can't work ends at once in an error that names what to change, and no secret."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from genro_nats import (
    ConfigurationError,
    ConnectionLostError,
    ExecutorError,
    NatsExecutor,
    PermissionDeniedError,
)
from tests.transport.brokers import Brokers
from tests.transport.identities import Authority, Key, Tenancy

pytestmark = pytest.mark.anyio
WRONG = "wr0ng-w0rd"
AT_ONCE = 2.0  # seconds; the silence of a worker lasts 5, connect_timeout below 30


async def refusal(**options: Any) -> ExecutorError:
    """The error of a call with these options, within AT_ONCE."""
    begin = time.monotonic()
    with pytest.raises(ExecutorError) as caught:
        async with NatsExecutor("way", **{"connect_timeout": 30, **options}) as pool:
            await pool.submit(abs, -1)
    assert time.monotonic() - begin < AT_ONCE
    gc.collect()  # what a failed attempt left open would warn here, and warnings are errors
    await asyncio.sleep(0)
    return caught.value


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "fields", ""))


@pytest.mark.parametrize("scheme", ["nats", "ws"])
@pytest.mark.parametrize("way", ["password", "token", "address"])
async def test_wrong_credentials(
    brokers: Brokers, caplog: pytest.LogCaptureFixture, scheme: str, way: str
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = brokers(
        'websocket { host: "127.0.0.1", port: $WEB, no_tls: true }\n'
        'authorization { user: app, password: "right" }'
    )
    login = {"password": {"user": "app", "password": WRONG}, "token": {"token": WRONG}, "address": {}}[way]
    url = broker.url(scheme, f"app:{WRONG}@" if way == "address" else "")
    error = await refusal(url=url, **login)
    assert isinstance(error, ConnectionLostError)
    assert all(name in str(error) for name in ("password", "token", "nkey_seed_file", "credentials_file"))
    assert WRONG not in told(error) + caplog.text


async def test_wrong_nkey(brokers: Brokers, tmp_path: Path) -> None:
    known, other = Key("U"), Key("U")
    (tmp_path / "user.nk").write_text(other.seed)
    broker = brokers(f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}")
    error = await refusal(url=broker.url(), nkey_seed_file=str(tmp_path / "user.nk"))
    assert isinstance(error, ConnectionLostError) and "nkey_seed_file" in str(error)
    assert other.seed not in told(error)


@pytest.mark.parametrize("option", ["nkey_seed_file", "credentials_file"])
@pytest.mark.parametrize(
    "content", [None, "", "SUsecretbutbroken", "-----BEGIN NATS USER JWT-----\nSUsecret"]
)
async def test_unusable_key_files(tmp_path: Path, option: str, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    error = await refusal(url="nats://127.0.0.1:1", **{option: str(file)})
    assert isinstance(error, ConfigurationError) and option in str(error)
    assert "SUsecret" not in told(error)


async def test_credentials_cut_off_before_the_seed(tmp_path: Path, operator: Tenancy) -> None:
    file = tmp_path / "cut.creds"
    file.write_text(Path(operator.file).read_text().partition("SU")[0])
    error = await refusal(url="nats://127.0.0.1:1", credentials_file=str(file))
    assert isinstance(error, ConfigurationError) and operator.token not in told(error)


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_unknown_authority(brokers: Brokers, stranger: Authority, tls: str, scheme: str) -> None:
    broker = brokers(f'{tls}\nwebsocket {{ host: "127.0.0.1", port: $WEB, {tls} }}')
    error = await refusal(url=broker.url(scheme), tls_ca=stranger.file)
    assert isinstance(error, ConnectionLostError)
    assert "tls_ca" in str(error) and "certificate verify failed" in str(error).lower()


async def test_missing_client_certificate(brokers: Brokers, authority: Authority) -> None:
    server = authority.issue("server-strict")
    broker = brokers(
        f'tls {{ cert_file: "{server.cert}", key_file: "{server.key}", ca_file: "{authority.file}", '
        "verify: true }"
    )
    error = await refusal(url=broker.url("tls"), tls_ca=authority.file, connect_timeout=1)
    assert isinstance(error, ConnectionLostError) and "tls_cert" in str(error)


async def test_a_server_without_tls_gets_no_password(brokers: Brokers) -> None:
    broker = brokers('authorization { user: app, password: "right" }')
    error = await refusal(url=broker.url("tls"), user="app", password="right")
    assert isinstance(error, ConnectionLostError) and "offers no TLS" in str(error)


async def test_no_server_names_the_address_without_its_login() -> None:
    error = await refusal(url=f"nats://app:{WRONG}@127.0.0.1:1", connect_timeout=0.3)
    assert isinstance(error, ConnectionLostError) and "127.0.0.1:1" in str(error)
    assert WRONG not in told(error)


@pytest.mark.parametrize(
    ("module", "extra", "options"),
    [
        ("aiohttp", "websocket", {"url": "ws://127.0.0.1:1"}),
        ("nkeys", "nkeys", {"nkey_seed_file": "user.nk"}),
        ("nkeys", "nkeys", {"credentials_file": "user.creds"}),
    ],
)
async def test_missing_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, options: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    error = await refusal(**options)
    assert isinstance(error, ConfigurationError) and f'pip install "genro-nats[{extra}]"' in str(error)


@pytest.mark.parametrize("subject", ["Big.call.tasks.way", "Big.reply.>"])
async def test_a_forbidden_subject_ends_the_call(brokers: Brokers, subject: str) -> None:
    denied = "publish" if "call" in subject else "subscribe"
    broker = brokers(
        f"authorization {{ users: [ {{ user: app, password: right, permissions: {{ {denied}: "
        f'{{ deny: "{subject}" }} }} }} ] }}'
    )
    login = {"user": "app", "password": "right"}
    error = await refusal(url=broker.url(), prefix="Big", subject="tasks.way", **login)
    assert isinstance(error, PermissionDeniedError) and isinstance(error, PermissionError)
    assert denied in str(error) and subject.rstrip(">") in str(error)


def test_the_worker_command_leaves_with_the_same_words(brokers: Brokers, tmp_path: Path) -> None:
    broker = brokers('authorization { user: app, password: "right" }')
    (tmp_path / "word").write_text(WRONG)
    given = ["--url", broker.url(), "--user", "app", "--password-file", str(tmp_path / "word")]
    command = [sys.executable, "-m", "genro_nats.cli.main", "worker", "--subject", "tasks.way", *given]
    done = subprocess.run(
        [*command, "--log-level", "debug"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert "refused the credentials" in done.stderr and WRONG not in done.stderr + done.stdout
