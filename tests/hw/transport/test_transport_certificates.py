"""The files of a side of a TLS connection: what is wrong with them is told at the start, in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bridge_in_use import ARM, NOBODY
from policy_credentials import tls_credentials
from served_policies import Rising

from robo_core.errors import ConfigError
from robo_hw.errors import AddressError, CredentialsError
from robo_hw.transport import Address, Credentials, PolicyClient, PolicyServer
from robo_policies.serving.certificates import make_certificates


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> tuple[Credentials, Credentials]:
    return tls_credentials(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, tuple[Credentials, Credentials]]:
    folder = tmp_path_factory.mktemp("tls")
    return {
        "expired": tls_credentials(folder / "expired", shift=-60),
        "not valid yet": tls_credentials(folder / "early", shift=60),
    }


def folder_of(credentials: Credentials) -> Path:
    return Path(credentials.certificates or "")


def break_file(name: str, content: bytes | None, mode: int = 0o600) -> Callable[[Path], None]:
    def action(folder: Path) -> None:
        path = folder / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)
            path.chmod(mode)

    return action


@pytest.mark.parametrize(
    ("action", "match"),
    [
        (lambda folder: (folder / "own.key").chmod(0o644), "private key .*own.key can be read by others .mode 644"),
        (break_file("own.key", None), "own.key cannot be read: No such file"),
        (break_file("own.key", b""), "own.key is empty"),
        (break_file("own.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "certificates "),
        (break_file("own.pem", None), "own.pem cannot be read: No such file"),
        (break_file("own.pem", b"hello"), "own.pem holds no certificate"),
        (break_file("peers.pem", None), "peers.pem cannot be read"),
        (lambda folder: (folder / "peers.pem").chmod(0o666), "peers.pem can be changed by others .mode 666"),
        (lambda folder: os.chown(folder / "peers.pem", NOBODY, NOBODY), "peers.pem belongs to user nobody"),
        (lambda folder: folder.chmod(0o1777), "others can write to"),
        (break_file("peers.pem", b""), "peers.pem holds no certificate"),
        (
            break_file("peers.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "certificates |peers.pem",
        ),
        (lambda folder: (folder / "peers.pem").write_bytes((folder / "own.pem").read_bytes()), "this side's own"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_files_that_do_not_fit_are_one_line(tmp_path, side, action, match):
    credentials = tls_credentials(tmp_path / "certificates")[side]
    if match.endswith("nobody") and os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    action(folder_of(credentials))
    with pytest.raises(CredentialsError, match=match) as error:
        (PolicyServer if side == 0 else PolicyClient)(
            ARM, "tls://127.0.0.1:5998", **({"policy": Rising(ARM)} if side == 0 else {}), credentials=credentials
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["expired", "not valid yet"])
def test_an_own_certificate_out_of_its_time_is_told_at_the_start_with_the_clock(others, kind):
    for side, make in enumerate((lambda c: c.server, lambda c: c.client)):
        with pytest.raises(CredentialsError, match="this computer's clock says 20") as error:
            make(others[kind][side])(Address.parse("tls://127.0.0.1:5998"))
        assert kind.split()[-1] in str(error.value)


def test_a_folder_for_the_other_side_and_a_key_of_another_certificate_are_told(tmp_path, ours, others):
    with pytest.raises(CredentialsError, match="other side of a connection"):
        ours[1].server(Address.parse("tls://127.0.0.1:5998"))
    with pytest.raises(CredentialsError, match="other side of a connection"):
        ours[0].client(Address.parse("tls://127.0.0.1:5998"))
    mixed = folder_of(tls_credentials(tmp_path / "mixed")[0])
    (mixed / "own.key").write_bytes((folder_of(ours[0]) / "own.key").read_bytes())
    with pytest.raises(CredentialsError, match="key values mismatch"):
        Credentials(certificates=str(mixed)).server(Address.parse("tls://127.0.0.1:5998"))
    with pytest.raises(CredentialsError, match="no such folder"):
        Credentials(certificates=str(tmp_path / "none")).server(Address.parse("tls://127.0.0.1:5998"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hosts": []}, "hosts is empty"),
        ({"hosts": ["tls://gpu.lab:5555"]}, "without tls:// and port"),
        ({"hosts": ["0.0.0.0"]}, "every address"),
        ({"hosts": ["gpu lab"]}, "is not a host name"),
        ({"clients": []}, "clients is empty"),
        ({"clients": ["server"]}, "'server' cannot be"),
        ({"clients": ["../x"]}, "cannot be the name"),
        ({"clients": ["a", "A"]}, "comes twice"),
        ({"days": 0}, "days=0"),
        ({"days": 4000}, "days=4000"),
    ],
)
def test_wrong_settings_of_certificates_write_nothing(tmp_path, change, match):
    with pytest.raises(ConfigError, match=match):
        make_certificates(tmp_path / "out", **{"hosts": ["gpu.lab"], **change})
    assert os.listdir(tmp_path) == []


def test_keys_are_private_and_never_overwritten_and_each_client_has_its_own(tmp_path):
    folders = make_certificates(tmp_path / "out", ["gpu.lab", "::1"], ["bridge", "monitor"])
    assert [folder.name for folder in folders] == ["server", "bridge", "monitor"]
    for folder in folders:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == dict.fromkeys(
            ("own.pem", "own.key", "peers.pem"), 0o600
        )
    assert (folders[0] / "peers.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    before = (folders[0] / "own.key").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        make_certificates(tmp_path / "out", ["gpu.lab"])
    assert (folders[0] / "own.key").read_bytes() == before
    (tmp_path / "empty").mkdir()
    make_certificates(tmp_path / "empty", ["gpu.lab"])


def test_a_client_needs_an_address_that_is_one_server_s(ours):
    for address in ("tls://0.0.0.0:5555", "tls://[::]:5555"):
        with pytest.raises(AddressError, match="every address of a computer"):
            PolicyClient(ARM, address, credentials=ours[1])
