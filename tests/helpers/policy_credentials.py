"""What a server and its clients prove themselves with in tests, for each kind of address."""

from __future__ import annotations

import datetime
from pathlib import Path

from robo_hw.transport import Credentials
from robo_policies.serving.certificates import make_certificates


def credentials(folder: Path, kind: str) -> tuple[Credentials, Credentials]:
    """(the server's, a client's) for ``unix``, ``tcp`` or ``tls``."""
    if kind == "unix":
        return Credentials(), Credentials()
    if kind == "tcp":
        secret = folder / "secret"
        secret.touch(mode=0o600)
        secret.write_text("0123456789abcdef" * 4)
        return Credentials(secret=str(secret)), Credentials(secret=str(secret))
    return tls_credentials(folder / "certificates")


def tls_credentials(
    folder: Path, hosts: tuple[str, ...] = ("127.0.0.1", "localhost"), days: int = 30, shift: float = 0.0
) -> tuple[Credentials, Credentials]:
    """The same for TLS; ``shift``: days by which the computer that made them was ahead."""
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=shift)
    server, bridge = make_certificates(folder, hosts, ("bridge",), days, now)
    return Credentials(certificates=str(server)), Credentials(certificates=str(bridge))
