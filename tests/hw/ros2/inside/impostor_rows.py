"""The policy server over TLS, and somebody else at its port after it died: the arm rests, whatever they send."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from rig import HERE, Process, Rig, other_environment, project_python, rig


class TlsRig(Rig):
    """Server and bridge as on two computers, with a certificate each; ``others`` has a stranger's."""

    def __init__(self, folder: Path) -> None:
        self.certificates, self.others = folder / "certificates", folder / "others"
        for out in (self.certificates, self.others):
            command = [project_python(), "-m", "robo_core.cli.main"]
            words = [*command, "make-certificates", f"out={out}", "hosts=[127.0.0.1]"]
            subprocess.run(words, check=True, capture_output=True, env=other_environment())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(folder)

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @address.setter
    def address(self, _: str) -> None:
        """The rig's own is a Unix socket."""

    def bridge_parameters(self) -> dict[str, object]:
        return {**super().bridge_parameters(), "policy_certificates": self.certificates / "bridge"}

    def start_server(self) -> Process:
        return self.serve(self.certificates)

    def serve(self, certificates: Path) -> Process:
        words = [str(HERE / "scripted_server.py"), str(self.contract_file), self.address, str(certificates / "server")]
        server = self.child(Process("server", words, self.folder, talks=True))
        server.hear("serving")
        return server

    @property
    def policy(self) -> dict[str, str]:
        return self.observer.diagnostics.get("robo_rm_policy: policy", {})


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("tls"), TlsRig) as made:
        yield made


def test_the_arm_moves_on_chunks_that_came_over_tls(processes):
    processes.run()
    processes.wait("the clocks are compared", lambda: bool(processes.policy.get("clock_offset")))
    assert abs(float(processes.policy["clock_offset"])) < 0.5, "both are this computer's"
    assert float(processes.policy["round_trip"]) < 1.0


def test_whoever_takes_the_port_of_a_dead_server_does_not_move_the_arm(processes):
    processes.run()
    processes.server.kill()
    processes.comes_to_rest("holding")
    impostor = processes.serve(processes.others)
    try:
        processes.wait("the bridge tells", lambda: "not among those in peers.pem" in processes.policy["message"])
        processes.spin(2.5)  # longer than it waits before it tries again
        assert processes.policy["state"] == "refused"
        assert processes.speed() == 0.0
        assert processes.state in ("holding", "disarmed")
    finally:
        impostor.end()
    processes.server = processes.start_server()
    processes.wait("the own server is taken again", lambda: processes.policy["state"] == "connected", 10.0)
    assert processes.speed() == 0.0, "nobody armed"
    processes.run()
