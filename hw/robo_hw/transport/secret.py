"""A shared secret on loopback TCP: both sides prove that they know it, neither shows it, and frames carry the proof on.

    client -> server   GREETING, nonce of the client
    server -> client   nonce of the server, HMAC(secret, "server", both nonces)
    client -> server   HMAC(secret, "client", both nonces)

The server proves itself first, to a client that has shown nothing. Both nonces are new each time, so what was overheard
proves nothing later; the two labels differ, so a proof cannot be sent back. Both derive keys for the frames of this
connection from the nonces: a program between the two that passes the proofs on can read, but not put in a frame. The
construction is SKID3's (Handbook of Applied Cryptography, 10.3.2), with HMAC (RFC 2104) and one key per direction.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from pathlib import Path

from robo_hw.errors import AuthenticationError, CredentialsError
from robo_hw.transport.channel import Channel, Seal, Steps, read_exactly, write_all
from robo_hw.transport.private import default_secret, make_secret, read_private

GREETING = b"robo-rm secret 2\n"
_NONCE = 32
_MAC = 32
_SHORTEST = 32
"""Characters; a secret that can be guessed can be guessed at leisure from one overheard proof."""


class SharedSecret:
    """The secret in a file. ``path`` None: this user's own, made where there is none yet; ``make``: make any other too.

    Raises:
        CredentialsError: the file is missing, open to others, empty or too short.
    """

    def __init__(self, path: str | None = None, make: bool = False) -> None:
        file = Path(path).expanduser() if path else default_secret()
        if (make or not path) and not os.path.lexists(file):
            make_secret(file)
        text = read_private(file, "secret").strip()
        if len(text) < _SHORTEST or len(set(text)) < 8:
            raise CredentialsError(
                f"secret {file} can be guessed: {_SHORTEST} random characters are needed; delete it, and serve-policy"
                " makes a new one"
            )
        self._key = hashlib.sha256(GREETING + text).digest()
        self.file = file

    def serve(self, made: socket.socket, peer: str) -> Steps:
        """The server's steps with one client.

        Raises:
            AuthenticationError: it does not know the secret, or speaks something else.
        """
        channel = Channel(made, peer)
        greeting = yield from read_exactly(channel, len(GREETING))
        if greeting != GREETING:
            raise AuthenticationError(f"it speaks {_language(greeting)}, not this version of robo-rm")
        theirs = yield from read_exactly(channel, _NONCE)
        nonces = theirs + os.urandom(_NONCE)
        yield from write_all(channel, nonces[_NONCE:] + self._mac(b"server", nonces))
        proof = yield from read_exactly(channel, _MAC)
        if not hmac.compare_digest(proof, self._mac(b"client", nonces)):
            raise AuthenticationError("it does not know the secret")
        channel.seals = Seal(self._mac(b"frames to client", nonces)), Seal(self._mac(b"frames to server", nonces))
        return channel

    def join(self, made: socket.socket, peer: str) -> Steps:
        """The client's steps with a server.

        Raises:
            AuthenticationError: it does not know the secret, or speaks something else.
        """
        channel = Channel(made, peer)
        mine = os.urandom(_NONCE)
        yield from write_all(channel, GREETING + mine)
        try:
            first = yield from read_exactly(channel, 1)
        except ConnectionError:
            raise ConnectionError("it closed the connection at the greeting; is it a tls:// server?") from None
        answer = first + (yield from read_exactly(channel, _NONCE + _MAC - 1))
        nonces = mine + answer[:_NONCE]
        if not hmac.compare_digest(answer[_NONCE:], self._mac(b"server", nonces)):
            raise AuthenticationError(
                f"whoever serves there does not know the secret in {self.file}; if it is your own server, give both"
                " sides the same secret"
            )
        yield from write_all(channel, self._mac(b"client", nonces))
        channel.seals = Seal(self._mac(b"frames to server", nonces)), Seal(self._mac(b"frames to client", nonces))
        return channel

    def _mac(self, label: bytes, nonces: bytes) -> bytes:
        return hmac.digest(self._key, GREETING + label + b"\0" + nonces, "sha256")


def _language(start: bytes) -> str:
    if start[:2] == b"\x16\x03":
        return "TLS"
    if start[:4] in (b"GET ", b"POST", b"HEAD"):
        return "HTTP"
    return "something else"
