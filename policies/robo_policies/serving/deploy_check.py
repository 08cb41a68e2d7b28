"""Everything that can be known before an arm moves, as one list of findings: what `robo-rm deploy-check` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robo_core.errors import StoreError
from robo_hw import RobotContract
from robo_policies.serving.check_store import action_findings, store_findings, store_values, unit
from robo_policies.serving.dry_run import DryRun, dry_run
from robo_policies.serving.fit import (
    GO,
    IMAGES,
    NO_GO,
    STATE,
    WARN,
    Finding,
    Findings,
    policy_findings,
    reward_findings,
)
from robo_policies.serving.loading import Loaded, warm_up
from robo_policies.serving.served import ServedLearnedPolicy, ServedRewardModel

if TYPE_CHECKING:
    from robo_datasets import DemoStore

SPARE = 3
"""Control points of the path that a new chunk cannot change any more: actions that pass before it takes effect."""
COMFORTABLE = 6
"""Actions that a chunk should reach beyond the next one's arrival."""


@dataclass(frozen=True)
class Checked:
    """The findings, and the dry run's metrics where there was one."""

    findings: list[Finding]
    run: DryRun | None

    @property
    def go(self) -> bool:
        """Whether nothing speaks against it."""
        return not any(finding.verdict == NO_GO for finding in self.findings)

    def metrics(self) -> dict[str, float]:
        """Flat metrics for ``metrics.json``."""
        counts = Counter(finding.verdict for finding in self.findings)
        figures: dict[str, float] = {
            "go": self.go,
            **{f"findings_{key.replace('-', '_')}": counts[key] for key in (GO, WARN, NO_GO)},
        }
        run = self.run
        if run is None or not run.latency:
            return figures
        for name, values in (("latency", run.latency), ("tick", run.tick), ("progress_latency", run.progress_latency)):
            if values:
                figures[f"{name}_p50"], figures[f"{name}_p99"] = (float(np.percentile(values, q)) for q in (50, 99))
        return figures | {
            "dry_run_episodes": run.episodes,
            "dry_run_seconds": run.seconds,
            "chunks": run.chunks,
            "chunks_accepted": run.accepted,
            "faults": len(run.faults),
            "slowed_share": run.slowed / max(run.moving, 1e-9),
            **{f"worst_{name}": value for name, value in run.worst.items() if name != "position"},
        }


def standing_findings(contract: RobotContract, loaded: Loaded, store: DemoStore) -> list[Finding]:
    """What store, checkpoint and reward model say of themselves, against the contract; nothing is run.

    Raises:
        StoreError: the store holds no episode.
    """
    if len(store) == 0:
        raise StoreError(f"{store.path} holds no episodes; record or import some first")
    joints = f"{len(contract.joints)} joints, {contract.hash[:12]}"
    findings = [Finding("contract", "file", GO, f"{contract.robot}, {joints}")]
    cartesian = loaded.actions(contract)
    findings += store_findings(store, contract, None if cartesian is None else cartesian.size)
    if loaded.policy is not None:
        findings += policy_findings(loaded.policy, contract, cartesian)
    if loaded.reward_model is not None:
        findings += reward_findings(loaded.reward_model, contract)
    needs = {STATE, *(loaded.policy.dims if loaded.policy else ()), *(loaded.policy.cameras if loaded.policy else ())}
    needs |= set(loaded.reward_model.cameras) if loaded.reward_model else set()
    for key in sorted(needs - store.features.keys()):
        kind = "camera" if key.startswith(IMAGES) else "feature"
        text = f"the store has no {kind} {key!r}, which the policy or the reward model reads"
        findings.append(Finding("dry run", "inputs", NO_GO, text))
    return findings


def deploy_check(
    contract: RobotContract,
    loaded: Loaded,
    store: DemoStore,
    episodes: int,
    seconds: float,
    mode: str,
    advance: Callable[[str], None] = lambda note: None,
) -> Checked:
    """All findings: the standing ones, and where these allow it a run of policy and core on recorded episodes.

    ``episodes`` are spread over the store; of each the first ``seconds`` are played. ``advance`` is called after each.

    Raises:
        StoreError: the store holds no episode.
    """
    findings = standing_findings(contract, loaded, store)
    if any(finding.verdict == NO_GO for finding in findings):
        findings.append(Finding("dry run", "policy and core", NO_GO, "not tried: fix the above first"))
        return Checked(findings, None)
    served, progress = loaded.served(contract, confirm_wider_limits=True)  # here they are a finding
    if served is None:
        return Checked(findings, None)
    warm_up(served)
    run, values = DryRun(), store_values(store, contract)
    for index in np.unique(np.linspace(0, len(store) - 1, min(episodes, len(store))).round().astype(int)):
        dry_run(run, store[int(index)], served, progress, contract, mode, seconds, values)
        advance(f"episode {index}: {run.accepted} of {run.chunks} chunks accepted")
    findings += rate_findings(run, served, progress, contract)
    findings += run_findings(run, contract)
    return Checked(findings, run)


def rate_findings(
    run: DryRun, policy: ServedLearnedPolicy, progress: ServedRewardModel | None, contract: RobotContract
) -> list[Finding]:
    """The policy's time against chunk length and deadlines, the core's against the control period."""
    if not run.latency:
        return []
    p50, p99 = (float(np.percentile(run.latency, q)) for q in (50, 99))
    rate, deadlines, info = contract.rates.actions, contract.deadlines, policy.info
    taken = f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    findings = Findings("rates")

    verdict = NO_GO if p99 > deadlines.chunk else WARN if p99 > deadlines.chunk / 2 else GO
    findings.add("policy latency", verdict, f"{taken}; deadlines.chunk {deadlines.chunk:g} s")

    needed = info.execution_horizon + int(np.ceil(p99 * rate)) + SPARE
    left = info.chunk_size - needed
    verdict = NO_GO if left < 0 else WARN if left < COMFORTABLE - SPARE else GO
    spent = int(np.ceil(p99 * rate))
    text = (
        f"{info.chunk_size} actions; {info.execution_horizon} carried out + {spent} while it computes + {SPARE} that"
        f" are fixed leave {left}"
    )
    findings.add("chunk horizon", verdict, text)

    gap = info.execution_horizon / rate + p99
    verdict = NO_GO if gap > deadlines.actions else WARN if gap > deadlines.actions / 2 else GO
    text = f"a chunk every {gap:.2f} s; deadlines.actions {deadlines.actions:g} s"
    findings.add("chunk interval", verdict, text)

    tick = float(np.percentile(run.tick, 99))
    verdict = GO if tick < 0.2 / contract.rates.control else WARN
    text = f"p99 {tick * 1e6:.0f} us of a period of {1e3 / contract.rates.control:g} ms"
    findings.add("core tick", verdict, text)
    if progress is not None and run.progress_latency:
        p99 = float(np.percentile(run.progress_latency, 99))
        verdict = GO if p99 < 1.0 / progress.rate else WARN
        text = f"p99 {p99 * 1e3:.1f} ms a frame at {progress.rate:g} frames/s"
        findings.add("reward model", verdict, text)
    return findings


def run_findings(run: DryRun, contract: RobotContract) -> list[Finding]:
    """What the core did with the policy's chunks."""
    findings = Findings("dry run")
    findings += action_findings("policy", run.predicted, contract) if run.predicted else []
    if run.faults:
        findings.add("faults", NO_GO, f"{len(run.faults)}; the first: {run.faults[0]}")
    else:
        findings.add("faults", GO, f"none in {run.seconds:.0f} s over {run.episodes} episodes")
    fraction = run.accepted / max(run.chunks, 1)
    reason = f"; {run.refusals.most_common(1)[0][0]}" if run.refusals else ""
    verdict = GO if fraction == 1 else WARN if fraction > 0.95 else NO_GO
    findings.add("chunks accepted", verdict, f"{run.accepted} of {run.chunks}{reason}")
    if run.stops:
        text, count = run.stops.most_common(1)[0]
        findings.add("stops", WARN, f"{run.stops.total()}; {count} times: {text}")
    else:
        findings.add("stops", GO, "none")
    slowed = run.slowed / max(run.moving, 1e-9)
    findings.add(
        "slowed by limits", GO if slowed < 0.1 else WARN if slowed < 0.5 else NO_GO, f"{slowed:.0%} of the motion"
    )
    if run.shortened:
        name, count = run.shortened.most_common(1)[0]
        findings.add("position limits", WARN, f"{run.shortened.total()} steps shortened, {count} of them by {name}")
    if run.deviation:
        gap = np.array(run.deviation)
        ratio = np.median(gap, axis=0) / contract.array("following_error")
        worst = int(np.argmax(ratio))
        joint = contract.joints[worst]
        text = f"{joint.name} lies {np.median(gap[:, worst]):.3g} {unit(joint)} off (median)"
        findings.add("against the recording", GO if ratio.max() < 1 else WARN, text)
    kept = (
        run.worst.get("position", 0.0) <= 1e-9
        and max((value for name, value in run.worst.items() if name != "position"), default=0.0) <= 1 + 1e-6
    )
    fractions = ", ".join(f"{name} {value:.2f}" for name, value in run.worst.items() if name != "position")
    findings.add("commands inside limits", GO if kept else NO_GO, f"greatest fractions: {fractions}")
    return findings
