"""Every kind of address and credentials leads a call to a worker, and shows no secret."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genro_nats import ConnectionLostError, NatsExecutor, NoWorkersError, PoolOptions
from genro_nats.testing import WorkerProcess
from genro_nats.transport.address import Address
from genro_nats.transport.nats import Connection
from tests.transport.brokers import Brokers
from tests.transport.conftest import call_through
from tests.transport.identities import Authority, Key, Tenancy
from tests.transport.streaming import until

pytestmark = pytest.mark.anyio
SECRET = "s3cret-w0rd"
Caplog = pytest.LogCaptureFixture


async def test_plain(brokers: Brokers, caplog: Caplog) -> None:
    await call_through(caplog, {"url": brokers().url()})


async def test_environment(brokers: Brokers, caplog: Caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = brokers(f'authorization {{ user: app, password: "{SECRET}" }}')
    monkeypatch.setenv("NATS_URL", broker.url(login=f"app:{SECRET}@"))
    await call_through(caplog, {}, (SECRET,))


async def test_user_and_password(brokers: Brokers, caplog: Caplog) -> None:
    broker = brokers(f'authorization {{ user: app, password: "{SECRET}" }}')
    await call_through(caplog, {"url": broker.url(), "user": "app", "password": SECRET}, (SECRET,))


async def test_login_in_the_address_is_unquoted(brokers: Brokers, caplog: Caplog) -> None:
    broker = brokers('authorization { user: app, password: "s3cret@w0rd,too" }')
    url = broker.url(login="app:s3cret%40w0rd%2Ctoo@")
    await call_through(caplog, {"url": url}, ("s3cret",))


async def test_token(brokers: Brokers, caplog: Caplog) -> None:
    broker = brokers(f'authorization {{ token: "{SECRET}" }}')
    await call_through(caplog, {"url": broker.url(), "token": SECRET}, (SECRET,))


async def test_nkey(brokers: Brokers, caplog: Caplog, tmp_path: Path) -> None:
    key = Key("U")
    (tmp_path / "user.nk").write_text(key.seed + "\n")
    broker = brokers(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}")
    options = {"url": broker.url(), "nkey_seed_file": str(tmp_path / "user.nk")}
    await call_through(caplog, options, (key.seed,))


async def test_credentials_file(brokers: Brokers, caplog: Caplog, operator: Tenancy) -> None:
    broker = brokers(operator.configuration)
    options = {"url": broker.url(), "credentials_file": operator.file}
    await call_through(caplog, options, (operator.seed, operator.token))


async def test_tls_with_an_authority_and_a_client_certificate(
    brokers: Brokers, caplog: Caplog, authority: Authority
) -> None:
    server, client = authority.issue("server-mutual"), authority.issue("client")
    broker = brokers(
        f'tls {{ cert_file: "{server.cert}", key_file: "{server.key}", ca_file: "{authority.file}", '
        f"verify: true }}\n"
        f'authorization {{ user: app, password: "{SECRET}" }}'
    )
    way = {"tls_ca": authority.file, "tls_cert": client.cert, "tls_key": client.key}
    login = {"user": "app", "password": SECRET}
    await call_through(caplog, {"url": broker.url("tls"), **way, **login}, (SECRET,))


async def test_tls_hostname(brokers: Brokers, caplog: Caplog, authority: Authority) -> None:
    named = authority.issue("named", "nats.example")
    broker = brokers(f'tls {{ cert_file: "{named.cert}", key_file: "{named.key}" }}')
    options = {"url": broker.url("tls"), "tls_ca": authority.file, "tls_hostname": "nats.example"}
    await call_through(caplog, options)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_the_end_of_a_connection_is_told_in_our_words(
    brokers: Brokers, caplog: Caplog, authority: Authority, tls: str, scheme: str
) -> None:
    caplog.set_level(logging.WARNING)
    broker = brokers(tls if scheme == "tls" else "")
    options = (
        {"url": broker.url(scheme), "tls_ca": authority.file} if scheme == "tls" else {"url": broker.url()}
    )
    connection = Connection(Address(PoolOptions.build("nats", options, name="x")), "way")
    await connection.start()
    try:
        broker.end()
        await until(lambda: not connection.connected)
    finally:
        await connection.aclose()
    assert [record.message for record in caplog.records] == [
        f"way: lost the NATS server at {connection.shown}"
    ]


async def test_websocket(brokers: Brokers, caplog: Caplog) -> None:
    broker = brokers(
        'websocket { host: "127.0.0.1", port: $WEB, no_tls: true }\n'
        f'authorization {{ user: app, password: "{SECRET}" }}'
    )
    await call_through(caplog, {"url": broker.url("ws"), "user": "app", "password": SECRET}, (SECRET,))


async def test_secure_websocket(brokers: Brokers, caplog: Caplog, authority: Authority, tls: str) -> None:
    broker = brokers(f'websocket {{ host: "127.0.0.1", port: $WEB, {tls} }}')
    await call_through(caplog, {"url": broker.url("wss"), "tls_ca": authority.file})


async def test_tls_hostname_of_a_secure_websocket(
    brokers: Brokers, caplog: Caplog, authority: Authority
) -> None:
    named = authority.issue("named", "nats.example")
    tls = f'tls {{ cert_file: "{named.cert}", key_file: "{named.key}" }}'
    broker = brokers(f'websocket {{ host: "127.0.0.1", port: $WEB, {tls} }}')
    way = {"url": broker.url("wss"), "tls_ca": authority.file}
    await call_through(caplog, {**way, "tls_hostname": "nats.example"})
    other = NatsExecutor("other", subject="x", tls_hostname="other.example", connect_timeout=2.0, **way)
    with pytest.raises(ConnectionLostError, match="tls_hostname"):
        await other.start()


async def test_a_prefix_keeps_pools_of_one_subject_apart(brokers: Brokers) -> None:
    url = brokers().url()
    worker = {"url": url, "subject": "tasks.way", "prefix": "red", "max_workers": 1, "spares": 0}
    with WorkerProcess(worker):
        async with (
            NatsExecutor("red", url=url, subject="tasks.way", prefix="red") as red,
            NatsExecutor("blue", url=url, subject="tasks.way", prefix="blue") as blue,
        ):
            assert await red.submit(abs, -3) == 3
            with pytest.raises(NoWorkersError):
                await blue.submit(abs, -3)
