"""Parameters with which a node proves itself to the policy server, and has the server prove itself."""

from __future__ import annotations

from types import SimpleNamespace

from robo_hw.transport import Credentials
from robo_rm_bridge.settings import Setting

ACCESS = (
    Setting("policy_certificates", "", "for tls://: this computer's folder of robo-rm make-certificates"),
    Setting("policy_secret", "", "for tcp://: file with the server's secret. Empty: this user's own"),
    Setting("policy_users", [""], "for a Unix socket: names of further users who may serve"),
    Setting("policy_shared_folder", False, "for a Unix socket: it may lie in a folder that others can write to"),
)


def credentials(settings: SimpleNamespace) -> Credentials:
    """What the parameters say."""
    return Credentials(
        settings.policy_secret or None,
        settings.policy_certificates or None,
        tuple(settings.policy_users),
        settings.policy_shared_folder,
    )
