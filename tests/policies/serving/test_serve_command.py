"""The commands around serving over a network, where something is missing."""

from __future__ import annotations

import pytest

from robo_core.cli.main import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["listen=tls://0.0.0.0:5555"], "needs certificates on both sides"),
        (["listen=tls://0.0.0.0:5555", "certificates=nowhere"], "no such folder"),
        (["listen=tcp://0.0.0.0:5555"], "is for loopback only"),
        (["listen=unix:/tmp/p.sock"], "others can write to /tmp"),
        (["listen=unix:p", "certificates=x"], "is not TLS"),
        (["users=[nobody-of-this-name]"], "there is no user"),
    ],
)
def test_the_command_tells_in_one_line_what_would_not_be_safe(capsys, words, said):
    assert main(["serve-policy", "policy=nowhere", "contract=tidy_drawer", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hosts=[gpu.lab]"], "out"),
        (["out={here}/c"], "hosts is empty"),
        (["out={here}/c", "hosts=[tls://gpu.lab]"], "is not a host name"),
        (["out={here}/c", "hosts=[gpu.lab]", "days=0"], "days=0"),
        (["out={here}", "hosts=[gpu.lab]"], "which no robo-rm command wrote there"),
    ],
)
def test_certificates_are_not_made_by_halves(capsys, tmp_path, words, said):
    (tmp_path / "mine").write_text("x")
    assert main(["make-certificates", *(word.format(here=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_certificates_are_made_and_what_to_do_with_them_is_told(capsys, tmp_path):
    assert main(["make-certificates", f"out={tmp_path}/c", "hosts=[gpu.lab]", "clients=[bridge,monitor]"]) == 0
    told = capsys.readouterr().out
    assert "tls://gpu.lab:5555" in told
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["bridge", "monitor", "server"]
