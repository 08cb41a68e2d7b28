"""Serve a policy, and the progress of a reward model, to the bridge of one arm, here or on another computer.

Policies of `robo-rm train-policy` and plain LeRobot checkpoints (ACT, Diffusion) are served alike. The contract is the
arm's: a policy that was trained under another, and a bridge that runs another, are refused and told the field. Stop it
with Ctrl-C or SIGTERM; start it again at any time, the bridge finds it by itself.

Progress is advisory: it never gates the safety core.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass, field

from omegaconf import MISSING

import robo_hw
from robo_core.cli.following import say_then
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_hw import transport
from robo_policies import serving
from robo_policies.serving.cartesian_settings import CartesianSettings
from robo_rm.monitor.settings import Watch

GROUP = "robot"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm serve-policy``."""

    policy: str | None = None
    """Folder of the policy, as train-policy or LeRobot wrote it; null to serve progress only."""
    reward_model: str | None = None
    """Folder of a reward model whose progress is streamed; null for none."""
    contract: str = MISSING
    """The arm's contract: a YAML file, or the name of a packaged one."""
    listen: str = "unix:policy"
    """Where: unix:NAME (private to this user), unix:/path.sock, tcp://127.0.0.1:5555, tls://0.0.0.0:5555."""
    certificates: str | None = None
    """For tls://: the server's folder of make-certificates."""
    secret: str | None = None
    """For tcp://: file with the secret that both sides know, made if missing; null for this user's own."""
    users: list[str] = field(default_factory=list)
    """For a Unix socket: names of other users whose bridge may connect."""
    shared_folder: bool = False
    """For a Unix socket: it may lie in a folder that others can write to."""
    confirm_wider_limits: bool = False
    """Serve although limits of the contract are wider than those of the training: a policy never saw what is there."""
    cartesian: CartesianSettings = field(default_factory=CartesianSettings)
    """Where the policy's actions are poses of the hand: the arm's model, and what the values mean."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """Threads of a network on the CPU; 0 leaves it to torch."""
    watch: Watch = field(default_factory=Watch)
    """When progress asks for help."""
    out: str | None = None
    """Folder to write metrics.json to at the end; nothing is written without it."""


def run(config: Config) -> None:
    """Serve until a signal comes."""
    contract = robo_hw.RobotContract.load(config.contract)
    address = transport.Address.parse(config.listen)
    credentials = transport.Credentials(config.secret, config.certificates, tuple(config.users), config.shared_folder)
    credentials.server(address)  # before a network is loaded
    address.private_path(credentials.trusted(), credentials.shared_folder)
    config.watch.validate()
    if config.threads < 0:
        raise ConfigError(f"threads={config.threads} must be 0 (torch decides) or more")
    loaded = serving.load(config.policy, config.reward_model, config.device, config.cartesian)
    policy, progress = loaded.served(contract, config.watch, config.confirm_wider_limits)
    if loaded.reward_model is not None and loaded.monitor is None:
        say(f"the monitor of {config.reward_model} is not calibrated: fixed limits, and no promise about false alarms")
        say(f"robo-rm calibrate-monitor model={config.reward_model} store=STORE_WITH_UNSEEN_RUNS gives it one")
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    if policy is not None:
        serving.warm_up(policy)

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with transport.PolicyServer(
            contract, config.listen, policy, progress, report=say, credentials=credentials
        ) as server:
            parts = [f"policy {config.policy}"] if policy else []
            parts += [f"progress of {config.reward_model}"] if progress else []
            robot = f"{contract.robot} (contract {contract.hash[:12]})"
            say(f"serving {' and '.join(parts)} for {robot} at {server.address}")
            say_then(
                f"start the bridge on the arm's computer (ros2 launch robo_rm_bridge policy.launch.py), or "
                f"robo-rm run-policy contract={config.contract} policy_address={server.address}"
            )
            stop.wait()
            counts = server.counts()
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)
    say("stopped")
    if config.out is not None:
        out = OutputFolder(config.out, config)
        out.write_metrics(counts)
        out.announce()
