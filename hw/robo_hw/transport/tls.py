"""Mutual TLS between two computers: TLS 1.3 only, and each side takes exactly the certificates that it was given.

A folder of `robo-rm make-certificates` holds ``own.pem`` and ``own.key`` of this side and ``peers.pem``, the
certificates of the other side: they are pinned, no authority can vouch for another. There is no resumption, so every
connection shows its certificate again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import select
import socket
import ssl
import time
from pathlib import Path

from robo_hw.errors import AuthenticationError, CredentialsError
from robo_hw.transport.channel import Steps, TlsChannel
from robo_hw.transport.private import folder_problem, read_private, read_trusted

OWN, KEY, PEERS = "own.pem", "own.key", "peers.pem"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UNREAD = 64 * 1024

# What OpenSSL says -> what it means here. The first that is found in its text counts.
_MEANINGS = (
    ("alert certificate required", "this side showed no certificate, and the other side asks for one"),
    ("alert certificate expired", "the other side says that the certificate of this side has expired"),
    ("alert unknown ca", "the certificate of this side is not among those that the other side takes"),
    ("alert bad certificate", "the other side does not take the certificate of this side (is its clock right?)"),
    ("did not return a certificate", "it showed no certificate"),
    ("certificate has expired", "its certificate has expired"),
    ("not yet valid", "its certificate is not valid yet"),
    ("hostname mismatch", "its certificate is for another host name"),
    ("ip address mismatch", "its certificate is for another address"),
    ("self-signed certificate", "its certificate is not among those in peers.pem"),
    ("unable to get local issuer", "its certificate is not among those in peers.pem"),
    ("unable to get issuer", "its certificate is not among those in peers.pem"),
    ("unsuitable certificate purpose", "its certificate is for the other side of a connection"),
    ("unsupported protocol", "it offers less than TLS 1.3"),
    ("alert protocol version", "the other side does not take TLS 1.3"),
    ("version too low", "it offers less than TLS 1.3"),
    ("http request", "it speaks HTTP, not TLS"),
    ("wrong version number", "it does not speak TLS"),
    ("unexpected eof", "it closed the connection within the TLS handshake"),
    ("eof occurred", "it closed the connection within the TLS handshake"),
)


class TlsIdentity:
    """The certificates in a folder, for a server or for a client.

    Raises:
        CredentialsError: a file is missing or unreadable, the key is open to others or of another certificate, or the
            own certificate has expired; names the file.
    """

    def __init__(self, folder: str, server: bool) -> None:
        place = Path(folder).expanduser()
        if not place.is_dir():
            raise CredentialsError(f"certificates {place}: no such folder; robo-rm make-certificates makes one")
        problem = folder_problem(place.resolve())
        if problem:
            raise CredentialsError(f"certificates {place}: another user could replace them, because {problem}")
        self.folder, self._server = place, server
        read_private(place / KEY, "private key")
        pinned = _certificates(place / PEERS)
        own = _certificates(place / OWN)
        self._pins = {hashlib.sha256(der).digest() for der in pinned}
        if self._pins & {hashlib.sha256(der).digest() for der in own}:
            raise CredentialsError(f"{place / PEERS} holds this side's own certificate; it must hold the other side's")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = not server
        self._context.verify_mode = ssl.CERT_REQUIRED
        # A pinned certificate is trusted by itself: no authority above it is asked for.
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if server:
            self._context.num_tickets = 0
        try:
            self._context.load_cert_chain(place / OWN, place / KEY, password=_no_password)
            self._context.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, pinned)))
        except (OSError, ValueError) as error:
            raise CredentialsError(f"certificates {place}: {meaning(error)}") from None
        self._check_own(own, server)

    def shake(self, made: socket.socket, peer: str, host: str | None = None) -> Steps:
        """A server's steps with one client, or a client's with the server at ``host``.

        Raises:
            AuthenticationError: no TLS 1.3, or a certificate that is missing, expired, not pinned or of another name.
            ConnectionError: the other side left.
        """
        made.setblocking(False)
        try:
            wrapped = self._context.wrap_socket(made, self._server, False, server_hostname=host)
        except (OSError, ValueError) as error:
            raise AuthenticationError(meaning(error)) from None
        try:
            while True:
                try:
                    wrapped.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    yield select.POLLIN
                except ssl.SSLWantWriteError:
                    yield select.POLLOUT
            shown = wrapped.getpeercert(binary_form=True)
        except (OSError, ValueError) as error:
            # ValueError: closed within the handshake; its socket is ours, the caller no longer has it. What is left
            # unread would make the end a reset, which may overtake the alert that tells the other side why.
            with contextlib.suppress(OSError):
                socket.socket.recv(wrapped, _UNREAD)
            wrapped.close()
            broken = not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError)
            raise (ConnectionError if broken else AuthenticationError)(meaning(error)) from None
        except GeneratorExit:
            wrapped.close()
            raise
        # Verified by OpenSSL against the pins already; looked at once more, because everything hangs on it.
        if shown is None or hashlib.sha256(shown).digest() not in self._pins:
            wrapped.close()
            raise AuthenticationError("its certificate is not among those in peers.pem")
        return TlsChannel(wrapped, peer)

    def _check_own(self, own: list[bytes], server: bool) -> None:
        """Let OpenSSL verify the own certificate as the other side will: dates, purpose, and that the key fits."""
        shower, looker = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        asked = looker if server else shower
        looker.check_hostname = False
        looker.verify_mode = ssl.CERT_NONE
        for context in (shower, looker):
            context.load_cert_chain(self.folder / OWN, self.folder / KEY, password=_no_password)
        asked.verify_mode = ssl.CERT_REQUIRED
        asked.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        asked.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, own)))
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = [shower.wrap_bio(there, back, server_side=True), looker.wrap_bio(back, there)]
        try:
            for _ in range(4):
                for side in (sides[1], sides[0]):
                    try:
                        side.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
        except OSError as error:
            text = meaning(error).replace("its certificate", "the certificate").replace("peers.pem", "itself")
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            raise CredentialsError(
                f"{self.folder / OWN}: {text} (this computer's clock says {now}); run robo-rm make-certificates again,"
                " or set the clock"
            ) from None


def meaning(error: Exception) -> str:
    """What an error of OpenSSL means here, in a few words."""
    text = (getattr(error, "verify_message", "") or "") + " " + str(error).replace("_", " ")
    found = next((said for sign, said in _MEANINGS if sign in text.lower()), "")
    if found:
        return found
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return f"TLS failed ({str(reason).lower().replace('_', ' ')})" if isinstance(error, ssl.SSLError) else str(reason)


def _certificates(path: Path) -> list[bytes]:
    """The certificates of a PEM file, as DER."""
    text = read_trusted(path, "certificate").decode("ascii", errors="replace")
    try:
        found = [ssl.PEM_cert_to_DER_cert(block) for block in _CERTIFICATE.findall(text)]
    except ValueError:
        raise CredentialsError(f"certificate {path} is not PEM") from None
    if not found:
        raise CredentialsError(f"certificate {path} holds no certificate")
    return found


def _no_password(*_: object) -> str:
    raise ValueError("the private key is encrypted; a node cannot ask for its password, store it with mode 600")
