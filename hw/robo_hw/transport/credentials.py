"""How each side proves who it is: by user on a Unix socket, by a secret on loopback, by certificate on a network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from robo_hw.errors import AuthenticationError, CredentialsError
from robo_hw.transport.address import Address, source
from robo_hw.transport.channel import Channel, Steps
from robo_hw.transport.private import peer_user, user_name, user_numbers
from robo_hw.transport.secret import SharedSecret
from robo_hw.transport.tls import TlsIdentity

Authenticate = Callable[[socket.socket], Steps]


@dataclass(frozen=True)
class Credentials:
    """What proves this side, and what the other side must prove. The same four settings for server and client.

    ``secret``: file with the secret of ``tcp://``; None is this user's own file, made where there is none.
    ``certificates``: folder with those of ``tls://``. ``users``: names or numbers of users besides this one who may be
    at the other end of a Unix socket. ``shared_folder``: the socket may lie where others can write.
    """

    secret: str | None = None
    certificates: str | None = None
    users: tuple[str, ...] = ()
    shared_folder: bool = False

    def trusted(self) -> frozenset[int]:
        """Numbers of the declared users.

        Raises:
            CredentialsError: there is no such user.
        """
        return user_numbers(self.users)

    def server(self, address: Address) -> Authenticate:
        """What a server does with each new connection.

        Raises:
            CredentialsError: the secret or a certificate is missing or wrong.
        """
        self._fit(address)
        if address.path:
            return _UnixUser(self.trusted(), "it belongs to").steps
        if address.tls:
            identity = TlsIdentity(self.certificates or "", server=True)
            return lambda made: identity.shake(made, source(made))
        secret = SharedSecret(self.secret, make=True)
        return lambda made: secret.serve(made, source(made))

    def client(self, address: Address) -> Authenticate:
        """What a client does with each connection that it gets.

        Raises:
            CredentialsError: the secret or a certificate is missing or wrong.
        """
        self._fit(address)
        if address.path:
            return _UnixUser(self.trusted(), "whoever serves there is").steps
        if address.tls:
            identity = TlsIdentity(self.certificates or "", server=False)
            return lambda made: identity.shake(made, str(address), address.host)
        secret = SharedSecret(self.secret)
        return lambda made: secret.join(made, str(address))

    def _fit(self, address: Address) -> None:
        """Refuse what does nothing at this address: who gives it believes that it protects."""
        if address.tls and not self.certificates:
            raise CredentialsError(
                f"{address} needs certificates on both sides; make them with robo-rm make-certificates, and give"
                " certificates=FOLDER"
            )
        if self.certificates and not address.tls:
            raise CredentialsError(f"certificates are given, and {address} is not TLS; give tls://HOST:PORT")
        if self.secret and address.kind != "tcp":
            raise CredentialsError(f"a secret is given, and {address} has none; give tcp://127.0.0.1:PORT")
        if (self.users or self.shared_folder) and address.kind != "unix":
            raise CredentialsError(f"users and shared_folder are for a Unix socket, and {address} is not one")


class _UnixUser:
    """Looks at the user at the other end, which the kernel vouches for."""

    def __init__(self, trusted: frozenset[int], words: str) -> None:
        self._trusted, self._words = trusted, words

    def steps(self, made: socket.socket) -> Steps:
        """There is nothing to wait for."""
        user = peer_user(made)
        if user is None:
            raise AuthenticationError(
                "this system does not tell who is at the other end of a Unix socket; use tcp://127.0.0.1:PORT"
            )
        allowed = {os.geteuid(), *self._trusted}
        if user not in allowed:
            names = ", ".join(sorted(user_name(number) for number in allowed))
            raise AuthenticationError(
                f"{self._words} user {user_name(user)}, and only {names} may; declare others in users"
            )
        return Channel(made, f"user {user_name(user)}")
        yield  # a generator, as the others are
