"""Make the certificates by which a policy server on another computer and the arm's bridge authenticate each other.

Writes a folder for each side: copy `server` to the computer that serves (`robo-rm serve-policy
listen=tls://0.0.0.0:5555 certificates=server`), and `bridge` to the arm's (parameter `policy_certificates`), over a
channel that you trust, such as scp. Each side accepts the other's certificate only. Keys are never overwritten:
to renew them, make a new folder and replace both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from robo_core.cli.following import say_next
from robo_core.console import say
from robo_policies import serving

GROUP = "robot"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm make-certificates``."""

    out: str = MISSING
    """New folder to write to; keep it where nobody else can read it."""
    hosts: list[str] = field(default_factory=list)
    """Names and addresses that clients connect to, such as [gpu.lab,192.168.1.20]."""
    clients: list[str] = field(default_factory=lambda: ["bridge"])
    """A name for each computer that connects; each gets a folder of this name."""
    days: int = 365
    """How long the certificates are valid, 1 to 3650."""


def run(config: Config) -> None:
    """Write the folders and say what to do with them."""
    out = Path(config.out).expanduser()
    made = serving.make_certificates(out, config.hosts, config.clients, config.days)
    say(f"wrote {', '.join(str(folder) for folder in made)}, valid for {config.days} days")
    say(f"copy {made[0]} to the computer that serves: serve-policy listen=tls://0.0.0.0:5555 certificates=FOLDER")
    for folder in made[1:]:
        say(f"copy {folder} to the arm's computer: policy_address:=tls://{config.hosts[0]}:5555, policy_certificates")
    say("then delete what is left here; whoever has a key can be that side")
    say_next(
        "serve-policy",
        policy="POLICY",
        contract="YOUR_ROBOT.yaml",
        listen="tls://0.0.0.0:5555",
        certificates=str(made[0]),
    )
