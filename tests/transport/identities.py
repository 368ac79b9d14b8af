"""Certificates, nkeys and JWTs, made anew for a test session."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nacl.signing import SigningKey

_PREFIXES = {"O": 14 << 3, "A": 0, "U": 20 << 3}
_SEED = 18 << 3
_HEADER = b'{"typ":"JWT","alg":"ed25519-nkey"}'


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """A certificate authority with a file of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._certificate(self._name, self._key, ca=True)
        self.file = str(directory / f"{name}.pem")
        Path(self.file).write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, host: str = "127.0.0.1") -> Certificate:
        """A certificate for ``host``, an IP address or a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = self._certificate(subject, key, host=host)
        files = Certificate(str(self._directory / f"{name}.crt"), str(self._directory / f"{name}.key"))
        Path(files.cert).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        Path(files.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False, host: str = ""
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        draft = (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if host:
            draft = draft.add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
        return draft.sign(self._key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Key:
    """An nkey: O operator, A account, U user."""

    def __init__(self, role: str) -> None:
        raw, prefix = bytes(SigningKey.generate()), _PREFIXES[role]
        self.seed = _encoded(bytes([_SEED | prefix >> 5, (prefix & 31) << 3]) + raw)
        pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = pair.public_key.decode()

    def jwt(self, subject: str, name: str, claims: dict[str, Any]) -> str:
        """A token about ``subject``, signed with this key."""
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject, "nats": claims}
        body["jti"] = (
            base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        )
        text = f"{_url64(_HEADER)}.{_url64(json.dumps(body).encode())}"
        pair = nkeys.from_seed(bytearray(self.seed.encode()))
        return f"{text}.{_url64(pair.sign(text.encode()))}"


def _encoded(data: bytes) -> str:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass(frozen=True)
class Tenancy:
    """A server configuration with an operator and one account, and a user's credentials file."""

    configuration: str
    file: str
    seed: str
    token: str


def tenancy(directory: Path) -> Tenancy:
    """An operator, an account and a user, each signed by the one before."""
    operator, account, user = Key("O"), Key("A"), Key("U")
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    of_operator = operator.jwt(operator.public, "operator", {"type": "operator", "version": 2})
    limits = {**unlimited, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "wildcards": True}
    of_account = operator.jwt(account.public, "account", {"type": "account", "version": 2, "limits": limits})
    of_user = account.jwt(user.public, "user", {"type": "user", "version": 2, **unlimited})
    file = directory / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    preload = f'resolver: MEMORY\nresolver_preload: {{ {account.public}: "{of_account}" }}'
    return Tenancy(f'operator: "{of_operator}"\n{preload}', str(file), user.seed, of_user)
