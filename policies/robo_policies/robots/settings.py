"""Settings of ``robo-rm run-policy``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from robo_policies.serving.cartesian_settings import CartesianSettings
from robo_rm.monitor.settings import Watch


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm run-policy``."""

    contract: str = MISSING
    """The arm's contract: a YAML file, or the name of a packaged one; with a section lerobot for robot=lerobot."""
    robot: Any = field(default_factory=dict)
    """robot=lerobot or robot=simulated; the settings of each are shown by `robo-rm run-policy robot=NAME --help`."""
    policy: str | None = None
    """Folder of the policy, as train-policy or LeRobot wrote it; it then runs in this process."""
    reward_model: str | None = None
    """Folder of a reward model whose progress is followed; null for none."""
    policy_address: str | None = None
    """Where robo-rm serve-policy serves, instead of policy and reward_model: unix:policy, tcp:// or tls://."""
    certificates: str | None = None
    """For tls://: this computer's folder of make-certificates."""
    secret: str | None = None
    """For tcp://: file with the secret that both sides know; null for this user's own."""
    users: list[str] = field(default_factory=list)
    """For a Unix socket: names of other users who may serve."""
    shared_folder: bool = False
    """For a Unix socket: it may lie in a folder that others can write to."""
    confirm_wider_limits: bool = False
    """Run although limits of the contract are wider than those of the training: a policy never saw what is there."""
    task: str = ""
    """The instruction."""
    mode: str = "real_time"
    """How chunks are put together: latest, temporal_ensemble or real_time."""
    record: str | None = None
    """Demo store to record the runs into, made where it is not there; null: nothing is recorded."""
    on_progress: str = "say"
    """say: progress is shown only; stop: where the reward model sees no progress, the arm is disarmed."""
    watch: Watch = field(default_factory=Watch)
    """When progress asks for help."""
    estop_file: str | None = None
    """A file that is an emergency stop as long as it exists; SIGUSR1 to this process is one, too."""
    demonstrations: str | None = None
    """Demo store of the demonstrations, for a policy that does not say where they began: arming far from there is said
    or refused, as safety.start_pose of the contract asks."""
    cartesian: CartesianSettings = field(default_factory=CartesianSettings)
    """Where the policy's actions are poses of the hand: the arm's model, and what the values mean."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """Threads of a network on the CPU; 0 leaves it to torch."""
    out: str | None = None
    """Folder to write metrics.json to at the end; nothing is written without it."""
