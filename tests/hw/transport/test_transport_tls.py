"""A policy server on another computer: who is refused, with one line each, while the arm in use goes on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bridge_in_use import ARM, QUICK, REST, InUse, connected, pictures, refused, until
from policy_credentials import tls_credentials
from relay import Relay
from served_policies import Counting, Rising

from robo_hw.transport import Address, ClientState, Credentials, PolicyClient, PolicyServer, Timeouts
from robo_hw.transport.gate import verdict

HOST = "127.0.0.1"
SHORT = Timeouts(retry=0.02, retry_refused=0.05, heartbeat=0.1, silence=2.5, authenticate=1.0, handshake=2.0, send=0.5)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> tuple[Credentials, Credentials]:
    return tls_credentials(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, tuple[Credentials, Credentials]]:
    folder = tmp_path_factory.mktemp("tls")
    return {
        "foreign": tls_credentials(folder / "foreign"),
        "expired": tls_credentials(folder / "expired", shift=-60),
        "not valid yet": tls_credentials(folder / "early", shift=60),
    }


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(ours, said) -> Iterator[PolicyServer]:
    policy, progress = Rising(ARM), Counting(ARM)
    with PolicyServer(ARM, f"tls://{HOST}:0", policy, progress, SHORT, said.append, ours[0]) as made:
        yield made


@pytest.fixture
def in_use(server, ours, said) -> Iterator[InUse]:
    with PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=ours[1]) as client, InUse(client) as use:
        said.clear()
        yield use
        until(lambda: len(use.gaps) > 3)
        assert client.status().connections == 1, client.status().message
        assert max(use.gaps) < 2.5


def pinning(folder: Path, own: Path, peers: Path) -> Credentials:
    """This side's key and certificate, with the other's pinned: a mixed folder."""
    folder.mkdir(mode=0o700)
    for name, source in (("own.pem", own), ("own.key", own), ("peers.pem", peers)):
        content = (source / (name if name != "peers.pem" else "own.pem")).read_bytes()
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    return Credentials(certificates=str(folder))


def folder_of(credentials: Credentials) -> Path:
    return Path(credentials.certificates or "")


def context_of(folder: Path | None, trusted: Path | None = None, version: ssl.TLSVersion | None = None):
    """A client's context without any of our checks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if folder is not None:
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
    if version is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = version
    return context


def knock(address: Address, context: ssl.SSLContext) -> str:
    """What a client without our code is told: the server's alert, or what it says first."""
    try:
        with (
            socket.create_connection((address.host, address.port), 5.0) as made,
            context.wrap_socket(made, server_hostname=HOST) as wrapped,
        ):
            return repr(wrapped.recv(100))
    except OSError as error:
        return str(error)


def test_chunks_progress_and_pictures_travel_over_tls_1_3(server, ours):
    with PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=ours[1]) as client:
        connected(client)
        images = {n: np.random.default_rng(0).integers(0, 255, p.shape, np.uint8) for n, p in pictures().items()}
        assert client.send_observation(ARM.joint_names, REST, images, observed_at=12.5, epoch=5)
        chunk = until(lambda: client.poll().chunk)
        assert (chunk.epoch, chunk.observed_at) == (5, 12.5)
        status = client.status()
        assert status.uplink is not None
        assert status.downlink is not None
        assert abs(status.clock_offset) <= status.clock_uncertainty + 1e-3, "one computer, one clock"
    assert context_of(folder_of(ours[1])).maximum_version is not None
    assert "x00" in knock(server.address, context_of(folder_of(ours[1]))), "with the right certificate it is let in"


@pytest.mark.parametrize(
    ("kind", "line", "alert"),
    [
        ("missing", "it showed no certificate", "certificate required"),
        ("foreign", "its certificate is not among those in peers.pem", "unknown ca"),
        ("server's own", "its certificate is", ""),
        ("TLS 1.2", "it offers less than TLS 1.3", "protocol version"),
    ],
)
def test_a_client_that_is_not_the_one_is_refused_in_one_line(server, in_use, ours, others, said, kind, line, alert):
    context = {
        "missing": lambda: context_of(None),
        "foreign": lambda: context_of(folder_of(others["foreign"][1])),
        "server's own": lambda: context_of(folder_of(ours[0])),
        "TLS 1.2": lambda: context_of(folder_of(ours[1]), version=ssl.TLSVersion.TLSv1_2),
    }[kind]()
    told = knock(server.address, context)
    assert alert in told.lower().replace("_", " ")
    until(lambda: said)
    assert len(said) == 1
    assert said[0].startswith("a connection was refused from 127.0.0.1: ")
    assert line in said[0]


@pytest.mark.parametrize("kind", ["expired", "not valid yet"])
def test_a_client_s_certificate_out_of_its_time_is_refused_though_it_is_pinned(tmp_path, ours, others, said, kind):
    credentials = pinning(tmp_path / "mixed", folder_of(ours[0]), folder_of(others[kind][1]))
    with PolicyServer(ARM, f"tls://{HOST}:0", Rising(ARM), None, SHORT, said.append, credentials) as server:
        told = knock(server.address, context_of(folder_of(others[kind][1])))
        assert "certificate" in told
        until(lambda: said)
    assert said == [
        f"a connection was refused from 127.0.0.1: its certificate {'has ' if kind == 'expired' else 'is '}{kind}"
    ]


@pytest.mark.parametrize(
    ("first", "line"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP, not TLS"),
        (b"robo-rm secret 2\n" + bytes(32), "it does not speak TLS"),
        (b"\x00\x00\x00\x04ping", "it does not speak TLS"),
    ],
)
def test_what_speaks_no_tls_is_refused_in_one_line(server, in_use, said, first, line):
    with socket.create_connection((HOST, server.address.port), 5.0) as made:
        made.sendall(first)
        with contextlib.suppress(OSError):
            while made.recv(100):
                pass
    until(lambda: said)
    assert said == [f"a connection was refused from 127.0.0.1: {line}"]


def trickle(made: socket.socket, data: bytes, every: float) -> float:
    """Send byte by byte until the other side leaves; returns the seconds that took."""
    began = time.monotonic()
    made.settimeout(every)
    with contextlib.suppress(ConnectionError):
        for i in range(len(data)):
            made.sendall(data[i : i + 1])
            with contextlib.suppress(TimeoutError):
                if not made.recv(100):
                    break
    return time.monotonic() - began


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)])
def test_a_slow_handshake_ends_at_its_time_however_it_trickles(server, in_use, said, first):
    with socket.create_connection((HOST, server.address.port), 5.0) as made:
        if first:
            assert trickle(made, first, 0.05) < 3.0
        else:
            made.settimeout(5.0)
            assert made.recv(100) == b""
    until(lambda: said)
    assert said == ["a connection was refused from 127.0.0.1: it did not prove who it is within 1 s"]


# The client's side ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def raw_server(folder: Path, trusted: Path, version: ssl.TLSVersion | None = None) -> Iterator[str]:
    """A TLS server without any of our checks, as whoever takes the port would run; it lets everybody in."""
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")
    if version is not None:
        context.maximum_version = version
    listening = socket.create_server((HOST, 0))

    def run() -> None:
        while True:
            try:
                made, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(made, server_side=True) as wrapped:
                wrapped.sendall(verdict(""))
                wrapped.settimeout(2.0)
                wrapped.recv(10)

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"tls://{HOST}:{listening.getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("foreign", "its certificate is not among those in peers.pem"),
        ("expired", "its certificate has expired"),
        ("not valid yet", "its certificate is not valid yet"),
        ("a client", "its certificate is for the other side of a connection"),
        ("TLS 1.2", "TLS 1.3"),
        ("another host", "its certificate is for another"),
    ],
)
def test_a_server_that_is_not_the_one_is_refused_in_one_line(tmp_path, ours, others, kind, match):
    bridge, version, serving = folder_of(ours[1]), None, folder_of(ours[0])
    if kind == "foreign":
        serving = folder_of(others["foreign"][0])
    elif kind in others:
        serving = folder_of(others[kind][0])
        bridge = folder_of(pinning(tmp_path / "mixed", bridge, serving))
    elif kind == "a client":
        serving = folder_of(others["foreign"][1])
        bridge = folder_of(pinning(tmp_path / "mixed", bridge, serving))
    elif kind == "another host":
        pair = tls_credentials(tmp_path / "elsewhere", hosts=("gpu.lab", "10.1.2.3"))
        serving, bridge = (folder_of(one) for one in pair)
    else:
        version = ssl.TLSVersion.TLSv1_2
    credentials = Credentials(certificates=str(bridge))
    with (
        raw_server(serving, bridge, version) as address,
        PolicyClient(ARM, address, timeouts=QUICK, credentials=credentials) as client,
    ):
        message = refused(client)
    assert match in message
    assert "\n" not in message
    assert message.startswith("tls://127.0.0.1:")


def test_a_name_that_is_not_in_the_certificate_is_refused_and_one_that_is_is_taken(tmp_path):
    mine, theirs = tls_credentials(tmp_path / "named", hosts=("localhost",))
    with PolicyServer(ARM, f"tls://{HOST}:0", Rising(ARM), credentials=mine) as server:
        port = server.address.port
        with PolicyClient(ARM, f"tls://{HOST}:{port}", timeouts=QUICK, credentials=theirs) as client:
            assert "certificate is for another address" in refused(client)
        with PolicyClient(ARM, f"tls://localhost:{port}", timeouts=QUICK, credentials=theirs) as client:
            connected(client)


def test_the_client_hears_why_the_server_refuses_it(server, in_use, tmp_path, ours, others, said):
    stranger = pinning(tmp_path / "mixed", folder_of(others["foreign"][1]), folder_of(ours[0]))
    with PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=stranger) as client:
        assert "the certificate of this side is not among those that the other side takes" in refused(client)


def test_a_client_for_loopback_tcp_is_told_that_this_is_tls_and_the_other_way_round(server, tmp_path, ours):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("0123456789abcdef" * 4)
    by_secret = Credentials(secret=str(secret))
    with PolicyClient(ARM, f"tcp://{HOST}:{server.address.port}", timeouts=QUICK, credentials=by_secret) as client:
        until(lambda: "is it a tls:// server" in client.status().message)
    with PolicyServer(ARM, f"tcp://{HOST}:0", Rising(ARM), credentials=by_secret) as plain:
        address = f"tls://{HOST}:{plain.address.port}"
        with PolicyClient(ARM, address, timeouts=QUICK, credentials=ours[1]) as client:
            until(lambda: "closed the connection" in client.status().message or "reset" in client.status().message)
            assert client.status().state is ClientState.CONNECTING


# Hostile once inside --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def inside(server: PolicyServer, credentials: Credentials) -> Iterator[tuple[ssl.SSLSocket, socket.socket]]:
    """A connection with the right certificate: (TLS, and the bytes under it)."""
    context = context_of(folder_of(credentials))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with socket.create_connection((HOST, server.address.port), 5.0) as made:

        def pump(action: Callable[[], object]) -> object:
            while True:
                try:
                    result = action()
                except ssl.SSLWantReadError:
                    result = None
                if outgoing.pending:
                    made.sendall(outgoing.read())
                if result is not None:
                    return result
                incoming.write(made.recv(65536))

        pump(lambda: side.do_handshake() or True)
        assert pump(lambda: side.read(1)) == verdict("")

        def record(data: bytes) -> bytes:
            side.write(data)
            return outgoing.read()

        yield record, made


def test_a_record_that_trickles_in_is_left_when_nothing_is_heard(server, in_use, ours, said):
    with inside(server, ours[1]) as (record, made):
        until(lambda: server.sessions == 2)
        assert trickle(made, record(bytes(2000)), 0.02) < 6.0
    until(lambda: server.sessions == 1)
    assert len([line for line in said if "has gone" in line]) == 1


def test_one_that_got_in_and_says_nothing_or_half_is_left_and_gives_its_place_to_others(server, in_use, ours, said):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(inside(server, ours[1])) for _ in range(12)]
        # Twelve and the bridge do not have room, so the first of the silent ones had to go.
        assert server.sessions <= 9
        silent[-1][1].sendall(silent[-1][0](b"\x00\x00\x10\x00abc"))  # half a frame
        address = str(server.address)
        with PolicyClient(ARM, address, role="monitor", timeouts=QUICK, credentials=ours[1]) as monitor:
            connected(monitor)
        until(lambda: server.sessions == 1, 10.0)


def test_one_that_got_in_and_stops_reading_does_not_hold_up_the_arm(server, in_use, ours, said):
    import json

    from robo_hw.transport.limits import HELLO
    from robo_hw.transport.messages import PROTOCOL, schema_hash
    from robo_hw.transport.wire import pack

    hello = {
        "type": "hello", "protocol": PROTOCOL, "schema": schema_hash(), "role": "monitor", "client": "deaf",
        "contract": json.dumps(ARM.to_dict()), "contract_hash": ARM.hash, "task": "", "shared": False, "slots": 4,
    }  # fmt: skip
    with inside(server, ours[1]) as (record, made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.sendall(record(pack(hello, HELLO)))
        ping = pack({"type": "ping", "sequence": 1}, HELLO)
        end = time.monotonic() + 15
        made.settimeout(10.0)  # the server gives up first, also on a busy machine

        def flood() -> None:
            while time.monotonic() < end:  # answers pile up until there is no room for them
                made.sendall(record(ping * 400))

        with pytest.raises(OSError):
            flood()
    until(lambda: server.sessions == 1)
    gone = [line for line in said if "has gone" in line]
    assert len(gone) == 1
    assert "did not read" in gone[0] or "reset" in gone[0] or "Broken pipe" in gone[0]


def test_the_same_bridge_that_comes_again_takes_its_own_place_at_once(server, ours, said):
    impatient = Timeouts(retry=0.02, heartbeat=0.1, silence=0.6, retry_refused=30.0)
    relay = Relay(server.address)
    with (
        relay as between,
        PolicyClient(ARM, between, timeouts=impatient, credentials=ours[1]) as client,
    ):
        connected(client)
        relay.freeze()
        until(lambda: client.status().connections == 2, 2.4)  # before the server gives the first one up
        with PolicyClient(ARM, str(server.address), timeouts=QUICK, credentials=ours[1]) as second:
            assert "another bridge" in refused(second)
        assert client.status().state is ClientState.CONNECTED
