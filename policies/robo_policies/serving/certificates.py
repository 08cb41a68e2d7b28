"""Certificates for a policy server on another computer: one for each side, pinned by the other, no authority above."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robo_core.errors import ConfigError, MissingPartError
from robo_hw.transport.tls import KEY, OWN, PEERS

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SERVER = "server"
MOST_DAYS = 3650
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_OTHER_USES = (
    "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
)  # fmt: skip
"""Of a key; these certificates sign a handshake and nothing else."""
_EARLY = datetime.timedelta(days=1)
"""Valid from so long before now: the two computers' clocks need not agree to the minute."""


def make_certificates(
    out: Path,
    hosts: Sequence[str],
    clients: Sequence[str] = ("bridge",),
    days: int = 365,
    now: datetime.datetime | None = None,
) -> list[Path]:
    """Write ``out/server`` and a folder for each client, each with ``own.pem``, ``own.key`` and ``peers.pem``.

    Keys are ECDSA P-256, certificates self-signed X.509 v3 (RFC 5280), each for its side of a connection only; the
    server's is for ``hosts``, the names or addresses that clients connect to. Keys have mode 600, folders 700.

    Args:
        out: a folder that is not there yet, or is empty: keys are never overwritten.
        hosts: host names and IP addresses of the server.
        clients: names of the computers that connect.
        days: how long the certificates are valid, 1 to 3650.
        now: the present, UTC; for tests.

    Raises:
        ConfigError: a setting is wrong, or the folder has something in it; nothing is written.
        MissingPartError: the package ``cryptography`` is not installed.
    """
    _check(out, hosts, clients, days)
    begin = (now or datetime.datetime.now(datetime.UTC)) - _EARLY
    end = begin + _EARLY + datetime.timedelta(days=days)
    sides = {SERVER: _make("robo-rm policy server", list(hosts), begin, end)}
    sides.update({name: _make(f"robo-rm client {name}", [], begin, end) for name in clients})
    built = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        os.makedirs(built, mode=0o700)
        for name, (certificate, key) in sides.items():
            others = [pem for other, (pem, _) in sides.items() if (other == SERVER) != (name == SERVER)]
            folder = built / name
            folder.mkdir(mode=0o700)
            _write(folder / KEY, key)
            _write(folder / OWN, certificate)
            _write(folder / PEERS, b"".join(others))
        if out.is_dir():
            out.rmdir()  # empty, or it is refused here
        os.rename(built, out)
    except OSError as error:
        shutil.rmtree(built, ignore_errors=True)
        raise ConfigError(f"out={out} cannot be written: {error.strerror}") from None
    return [out / name for name in sides]


def _check(out: Path, hosts: Sequence[str], clients: Sequence[str], days: int) -> None:
    if not out.name:
        raise ConfigError("out is empty; give a new folder for the certificates")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(f"out={out} is there already; keys are never overwritten, give a new folder")
    if not hosts:
        raise ConfigError("hosts is empty; give the names or addresses that clients connect to, as hosts=[gpu.lab]")
    for host in hosts:
        if not _is_address(host) and not _HOST.fullmatch(host):
            raise ConfigError(f"hosts: {host!r} is not a host name or address; give it without tls:// and port")
        if _is_address(host) and ipaddress.ip_address(host).is_unspecified:
            raise ConfigError(f"hosts: {host} is every address of a computer; give the one that clients connect to")
    if not clients:
        raise ConfigError("clients is empty; give a name for each computer that connects, as clients=[bridge]")
    for name in clients:
        if not _NAME.fullmatch(name) or name == SERVER:
            raise ConfigError(f"clients: {name!r} cannot be the name of a client's folder; give letters and digits")
    if len({name.lower() for name in clients}) != len(clients):
        raise ConfigError("clients: a name comes twice")
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"days={days} must be between 1 and {MOST_DAYS}")


def _make(name: str, hosts: list[str], begin: datetime.datetime, end: datetime.datetime) -> tuple[bytes, bytes]:
    """(certificate, private key), both PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise MissingPartError(f"certificates need cryptography ({error}); pip install cryptography") from None
    key: EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                encipher_only=False,
                decipher_only=False,
                **dict.fromkeys(_OTHER_USES, False),
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if hosts:
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host) for host in hosts
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate, private


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
