"""Who serves and who asks on one computer: users of a Unix socket, the secret of a TCP port, and the files of both."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge_in_use import ARM, NOBODY, QUICK, REST, AsNobody, connected, pictures, refused, until
from relay import Relay
from served_policies import Rising

from robo_hw.errors import AddressError, CredentialsError
from robo_hw.transport import Address, ClientState, Credentials, PolicyClient, PolicyServer
from robo_hw.transport.gate import verdict
from robo_hw.transport.private import default_secret, run_folder
from robo_hw.transport.secret import GREETING

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name that other users can look into: pytest's own are neither."""
    with tempfile.TemporaryDirectory(prefix="id") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def shared(tmp_path) -> Path:
    """A folder as /tmp is: anybody may put something into it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def serve(address: str, credentials: Credentials | None = None, **more) -> PolicyServer:
    return PolicyServer(ARM, address, Rising(ARM), timeouts=QUICK, credentials=credentials, **more)


def ask(address: str, credentials: Credentials | None = None) -> PolicyClient:
    return PolicyClient(ARM, address, timeouts=QUICK, credentials=credentials)


def impostor(path: str) -> str:
    """Listens as a policy server does, and lets everybody in."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    os.chmod(path, 0o666)
    listening.listen(8)

    def run() -> None:
        while True:
            made, _ = listening.accept()
            made.sendall(verdict(""))

    threading.Thread(target=run, daemon=True).start()
    return "listening"


# Unix sockets ---------------------------------------------------------------------------------------------------------


def test_a_name_lies_in_a_private_folder_that_the_server_makes():
    with serve("unix:policy") as server, ask("unix:policy") as client:
        connected(client)
        assert server.address.path == str(run_folder() / "policy.sock")
        assert os.stat(run_folder()).st_mode & 0o777 == 0o700
        with serve("unix:left.arm"), ask("unix:left.arm") as other:
            connected(other)
        assert client.status().state is ClientState.CONNECTED


def test_without_a_runtime_folder_the_socket_lies_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = Path(f"/run/user/{os.geteuid()}")
    folder = expected / "robo-rm" if expected.is_dir() else tmp_path / "home" / ".robo-rm" / "run"
    assert run_folder() == folder


@root_only
def test_another_user_s_runtime_folder_as_sudo_leaves_it_is_not_taken(monkeypatch, tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert not str(run_folder()).startswith(str(tmp_path / "theirs"))
    with serve("unix:policy"), ask("unix:policy") as client:
        connected(client)


def test_what_a_server_says_in_refusing_stays_one_line(tmp_path):
    path = str(tmp_path / "p.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        with ask(path) as client:
            made, _ = listening.accept()
            made.sendall(verdict("no\n\x1b[2Jthanks"))
            assert refused(client).endswith("the server refused: no??[2Jthanks")
            made.close()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o1770, 0o702])
def test_a_socket_where_others_can_write_is_refused_by_both_sides_unless_declared(tmp_path, mode):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    address, declared = f"unix:{folder}/p.sock", Credentials(shared_folder=True)
    with pytest.raises(AddressError, match=f"others can write to {folder} .mode {mode:o}"):
        serve(address)
    assert os.listdir(folder) == []
    with serve(address, declared), ask(address) as strict, ask(address, declared) as client:
        assert f"others can write to {folder}" in refused(strict)
        connected(client)


def test_a_folder_above_that_others_can_write_to_is_refused_and_links_are_followed(tmp_path):
    outer, inner, safe = tmp_path / "outer", tmp_path / "outer" / "inner", tmp_path / "safe"
    inner.mkdir(parents=True)
    inner.chmod(0o700)
    outer.chmod(0o777)
    with pytest.raises(AddressError, match=f"others can write to {outer} "):
        serve(f"unix:{inner}/p.sock")
    outer.chmod(0o1777)  # sticky: what is in it cannot be renamed by others
    serve(f"unix:{inner}/p.sock").close()
    safe.mkdir(mode=0o700)
    (safe / "link").symlink_to(outer)
    with pytest.raises(AddressError, match=f"others can write to {outer} "):
        serve(f"unix:{safe}/link/p.sock")
    deep = safe / ("d" * 90)
    deep.mkdir()
    (safe / "short").symlink_to(deep)
    with pytest.raises(AddressError, match="longer than 100 bytes"):
        serve(f"unix:{safe}/short/p.sock")


@root_only
def test_another_user_who_takes_the_name_is_refused_and_the_own_server_is_taken_again(shared):
    path, declared = str(shared / "p.sock"), Credentials(shared_folder=True)
    with ask(path, declared) as client:
        with serve(path, declared):
            connected(client)
        with AsNobody(lambda: impostor(path), stays=True) as other:
            assert other.said == "listening"
            assert "user nobody" in refused(client)
            assert not client.send_observation(ARM.joint_names, REST, observed_at=1.0)
        os.unlink(path)
        with serve(path, declared):
            connected(client)


@root_only
def test_a_server_of_a_declared_user_is_taken(shared):
    path = str(shared / "p.sock")

    def start() -> str:
        start.server = serve(path, Credentials(users=("root",), shared_folder=True))
        return "serving"

    with AsNobody(start, stays=True) as other:
        assert other.said == "serving"
        credentials = Credentials(users=("nobody",), shared_folder=True)
        with ask(path, credentials) as client, ask(path, Credentials(shared_folder=True)) as strict:
            connected(client)
            assert "declare others in users" in refused(strict)


@root_only
def test_another_user_s_client_is_refused_and_told_so(shared):
    path, said = str(shared / "p.sock"), []

    def knock() -> str:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(path)
        except PermissionError:
            return "no permission"
        return made.recv(300).decode(errors="replace")[1:]

    with serve(path, Credentials(shared_folder=True)), AsNobody(knock) as other:
        assert other.said == "no permission"
    credentials = Credentials(users=("daemon",), shared_folder=True)
    with serve(path, credentials, report=said.append), AsNobody(knock) as other:
        assert other.said == "it belongs to user nobody, and only daemon, root may; declare others in users"
        until(lambda: said)
    assert len(said) == 1
    assert "user nobody" in said[0]


@root_only
def test_another_user_s_dead_socket_is_one_line(shared):
    path = str(shared / "p.sock")

    def leave() -> str:
        socket.socket(socket.AF_UNIX).bind(path)
        return "left"

    with AsNobody(leave) as other:
        assert other.said == "left"
    with pytest.raises(AddressError, match=r"a socket of user nobody is there; have it removed") as error:
        serve(path, Credentials(shared_folder=True))
    assert "\n" not in str(error.value)
    os.chown(shared, NOBODY, NOBODY)
    with pytest.raises(AddressError, match="belongs to user nobody"):
        serve(path)


@root_only
def test_a_folder_that_cannot_be_entered_is_one_line(shared):
    closed = shared / "closed"
    closed.mkdir(mode=0o700)

    def attempt() -> str:
        lines = []
        for action in (lambda: serve(f"unix:{closed}/p.sock"), lambda: serve("unix:x", Credentials(users=("nope",)))):
            try:
                action()
            except (AddressError, CredentialsError) as error:
                lines.append(str(error))
        return "|".join(lines)

    with AsNobody(attempt) as other:
        first, second = other.said.split("|")
    assert "Permission denied" in first or "there is no folder" in first
    assert second == "there is no user 'nope' on this computer"


# The secret of a TCP port ---------------------------------------------------------------------------------------------


def test_both_sides_of_one_user_share_a_secret_without_a_setting():
    with serve("tcp://127.0.0.1:0") as server, ask(str(server.address)) as client:
        connected(client)
        assert client.send_observation(ARM.joint_names, REST, pictures(), observed_at=1.0)
        until(lambda: client.poll().chunk)
    assert default_secret().stat().st_mode & 0o777 == 0o600
    assert len(default_secret().read_text().strip()) == 64


def secret_file(folder: Path, text: str = "0123456789abcdef" * 4, mode: int = 0o600) -> str:
    path = folder / f"secret{len(os.listdir(folder))}"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_whoever_takes_the_freed_port_without_the_secret_is_refused_and_the_own_server_is_taken_again(tmp_path):
    mine, other = (Credentials(secret=secret_file(tmp_path, text * 8)) for text in ("01234567", "abcdefgh"))
    with serve("tcp://127.0.0.1:0", mine) as server:
        address = str(server.address)
        client = ask(address, mine)
        client.connect()
        connected(client)
    try:
        with serve(address, other):
            assert "does not know the secret" in refused(client)
        with serve(address, mine):
            connected(client)
            stranger = ask(address, other)
            stranger.connect()
            assert "does not know the secret" in refused(stranger)
            stranger.close()
            assert client.status().state is ClientState.CONNECTED
    finally:
        client.close()


def conversation(address: Address, *pieces: bytes) -> list[bytes]:
    """Say these to a server, and what it answered to each."""
    heard = []
    with address.connect(5.0) as made:
        for piece in pieces:
            made.sendall(piece)
            time.sleep(0.1)
            made.settimeout(1.0)
            try:
                heard.append(made.recv(4096))
            except OSError:
                heard.append(b"")
    return heard


def test_a_proof_that_was_overheard_or_sent_back_proves_nothing(tmp_path):
    said: list[str] = []
    credentials = Credentials(secret=secret_file(tmp_path))
    with serve("tcp://127.0.0.1:0", credentials, report=said.append) as server:
        overheard: list[tuple[str, bytes]] = []
        with Relay(server.address, overheard) as between, ask(between, credentials) as client:
            connected(client)
        theirs = b"".join(data for side, data in overheard if side == "client")
        start, proof = theirs[: len(GREETING) + 32], theirs[len(GREETING) + 32 : len(GREETING) + 64]
        assert start.startswith(GREETING)
        first, second = conversation(server.address, start, proof)
        assert len(first) == 64
        assert second == b"", "a second time it is refused"
        with server.address.connect(5.0) as made:  # the server's own proof, sent back
            made.sendall(GREETING + bytes(32))
            answer = made.recv(64)
            made.sendall(answer[32:])
            assert made.recv(64) == b""
        until(lambda: server.refused >= 2)
        assert conversation(server.address, b"\x16\x03\x01\x02\x00\x01\x00\x01" + bytes(30)) == [b""]
        assert server.sessions == 0


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_program_between_the_two_cannot_put_a_frame_of_its_own_in(tmp_path, side):
    credentials, seen = Credentials(secret=secret_file(tmp_path)), [0]

    def forge(found: str, data: bytes) -> bytes:
        seen[0] += found == side and len(data) > 300
        if found == side and seen[0] and len(data) > 300:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    said: list[str] = []
    with (
        serve("tcp://127.0.0.1:0", credentials, report=said.append) as server,
        Relay(server.address, [], forge) as between,
        ask(between, credentials) as client,
    ):
        until(lambda: seen[0])
        # The client is connecting before its first try, too: what it says tells that the frame was refused.
        if side == "server":
            until(lambda: "a frame came that the other side did not send" in client.status().message)
        else:
            until(lambda: any("a frame came that the other side did not send" in line for line in said))
        assert client.status().chunks == 0


@pytest.mark.parametrize(
    ("text", "mode", "match"),
    [
        ("0123456789abcdef" * 4, 0o644, "can be read by others .mode 644.; give it mode 600"),
        ("0123456789abcdef" * 4, 0o640, "can be read by others"),
        ("", 0o600, "is empty"),
        ("  \n", 0o600, "is empty"),
        ("short", 0o600, "can be guessed"),
        ("a" * 64, 0o600, "can be guessed"),
        ("0123456789" * 110_000, 0o600, "too long"),
    ],
)
def test_a_secret_that_is_none_is_one_line_for_both_sides(tmp_path, text, mode, match):
    credentials = Credentials(secret=secret_file(tmp_path, text, mode))
    for make in (serve, ask):
        with pytest.raises(CredentialsError, match=match) as error:
            make("tcp://127.0.0.1:5999", credentials)
        assert "\n" not in str(error.value)


def test_a_secret_that_is_missing_or_no_file_is_one_line(tmp_path):
    with pytest.raises(CredentialsError, match="cannot be read: No such file"):
        ask("tcp://127.0.0.1:5999", Credentials(secret=str(tmp_path / "none")))
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "", "link"):
        for make in (serve, ask):
            with pytest.raises(CredentialsError, match=r"is not a file|can be read by others|cannot be read"):
                make("tcp://127.0.0.1:5999", Credentials(secret=str(tmp_path / name)))
    serve("tcp://127.0.0.1:0", Credentials(secret=str(tmp_path / "new" / "secret"))).close()
    assert (tmp_path / "new" / "secret").stat().st_mode & 0o777 == 0o600


@root_only
def test_a_secret_of_another_user_is_not_taken(tmp_path):
    path = secret_file(tmp_path)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(CredentialsError, match="belongs to user nobody"):
        ask("tcp://127.0.0.1:5999", Credentials(secret=path))


@pytest.mark.parametrize(
    ("address", "credentials", "match"),
    [
        ("tls://robot:5555", Credentials(), "needs certificates"),
        ("unix:policy", Credentials(certificates="x"), "not TLS"),
        ("tcp://127.0.0.1:5555", Credentials(certificates="x"), "not TLS"),
        ("unix:policy", Credentials(secret="x"), "a secret is given"),
        ("tls://robot:5555", Credentials(secret="x", certificates="y"), "a secret is given"),
        ("tcp://127.0.0.1:5555", Credentials(users=("root",)), "for a Unix socket"),
        ("unix:policy", Credentials(users=("nobody-of-this-name",)), "no user 'nobody-of-this-name'"),
    ],
)
def test_credentials_that_do_nothing_at_an_address_are_refused(address, credentials, match):
    for make in (serve, ask):
        with pytest.raises(CredentialsError, match=match):
            make(address, credentials)
