"""Check contract, demonstrations, checkpoint, cameras, limits and rates before an arm moves: go or no-go.

Nothing moves. The policy is run on recorded observations in front of the safety core, in simulated time, with the time
that it really takes on this machine: run it on the computer that will serve the policy.

Exit code: 0 go, 1 no-go, 2 the command itself was wrong.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from omegaconf import MISSING

import robo_datasets
import robo_hw
from robo_core.cli.following import say_next, say_then
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder, write_atomically
from robo_hw import safety
from robo_policies import serving
from robo_policies.serving.cartesian_settings import CartesianSettings

GROUP = "robot"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm deploy-check``."""

    policy: str = MISSING
    """Folder of the policy, as train-policy or LeRobot wrote it."""
    contract: str = MISSING
    """The arm's contract: a YAML file, or the name of a packaged one."""
    store: str = MISSING
    """Demo store with recordings of this arm: limits are compared with it, and the dry run plays it."""
    reward_model: str | None = None
    """Folder of a reward model to check and run along; null for none."""
    mode: str = "real_time"
    """How chunks are put together: latest, temporal_ensemble or real_time."""
    episodes: int = 3
    """Recorded episodes to play, spread over the store."""
    seconds: float = 20.0
    """How much of each to play, s."""
    cartesian: CartesianSettings = field(default_factory=CartesianSettings)
    """Where the policy's actions are poses of the hand: the arm's model, and what the values mean."""
    device: str = "auto"
    """auto, cpu or cuda; as it will be served."""
    out: str | None = None
    """Folder to write metrics.json and findings.json to; nothing is written without it."""


def run(config: Config) -> None:
    """Check, print the table, exit with 1 on a no-go."""
    if config.mode not in safety.MODES:
        raise ConfigError(
            f"mode={config.mode!r} is no way to put chunks together; choose one of: {', '.join(safety.MODES)}"
        )
    if config.episodes < 1 or not config.seconds > 0:
        raise ConfigError(f"episodes={config.episodes} and seconds={config.seconds} must be above 0")
    contract = robo_hw.RobotContract.load(config.contract)
    store = robo_datasets.DemoStore.open(config.store)
    loaded = serving.load(config.policy, config.reward_model, config.device, config.cartesian)
    checked = serving.deploy_check.deploy_check(
        contract, loaded, store, config.episodes, config.seconds, config.mode, say
    )
    rows = [[finding.part, finding.check, finding.verdict.upper(), finding.detail] for finding in checked.findings]
    print_table(f"{config.policy} on {contract.robot}", ["part", "check", "verdict", "what was found"], rows)
    if config.out is not None:
        out = OutputFolder(config.out, config)
        out.write_metrics(checked.metrics())
        findings = [asdict(finding) for finding in checked.findings]
        write_atomically(out.path("findings.json"), json.dumps(findings, indent=1) + "\n")
        out.announce()
    wrong = [finding for finding in checked.findings if finding.verdict == "no-go"]
    if wrong:
        say(f"NO-GO: {len(wrong)} finding{'s' if len(wrong) != 1 else ''}; {wrong[0].part}, {wrong[0].check}")
        say_then(f"correct what the table says of {wrong[0].part}, then the same command again")
        raise SystemExit(1)
    say("GO, as far as this can see. A hardware emergency stop within reach is still required.")
    model = config.reward_model or ""
    say_next("serve-policy", policy=config.policy, reward_model=model, contract=config.contract)
