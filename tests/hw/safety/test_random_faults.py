"""Random sequences of faults, searched by hypothesis: no limit passed at any tick, no stop late, no latch lost."""

from __future__ import annotations

import os

import numpy as np
import pytest
from fault_search.contract import random_contract
from fault_search.prover import FAULTS, FaultAt, Margins, prove, run_sequence
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from robo_hw import RobotContract, example_contracts

SEED = int(os.environ.get("ROBO_HW_SEED", "20251120"))
SECONDS = 2.0
faults = st.lists(
    st.builds(FaultAt, st.floats(0.05, SECONDS), st.sampled_from(FAULTS), st.floats(0.0, 1.0)), max_size=8
)
seeds = st.integers(0, 2**32 - 1)


def search(examples: int) -> Margins:
    worst = Margins()

    @seed(SEED)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(faults=faults, arm=seeds, world=seeds)
    def holds(faults, arm, world):
        contract = random_contract(np.random.default_rng(arm))
        margins = run_sequence(contract, faults, seed=world, seconds=SECONDS)
        worst.add(margins)
        assert margins.violations == [], f"contract seed {arm}, world seed {world}"

    holds()
    print(f"\nseed {SEED}: {worst}")
    return worst


def moved_and_was_disturbed(worst: Margins, sequences: int) -> None:
    # A search in which nothing moves or nothing breaks proves nothing.
    assert worst.sequences >= sequences
    assert worst.accepted > 2 * sequences
    assert worst.stops > 0.2 * sequences
    assert worst.faults > 0.2 * sequences
    assert worst.armings > 0.5 * sequences
    assert worst.fault_commands > sequences
    assert worst.first_command > 0.1, "hands and late states have to be among it"
    assert max(worst.velocity, worst.acceleration, worst.jerk) > 0.5


def test_no_promise_is_broken_in_a_few_hundred_random_fault_sequences():
    moved_and_was_disturbed(search(200), 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_promise_is_broken_in_ten_thousand_random_fault_sequences():
    moved_and_was_disturbed(search(10_000), 10_000)


@pytest.mark.parametrize("name", example_contracts())
def test_the_example_contracts_keep_every_promise(name):
    worst = prove(RobotContract.load(name), sequences=25, seed=SEED)
    assert worst.violations == []
    assert worst.accepted > 25


def test_the_prover_sees_a_core_that_breaks_its_promises(monkeypatch):
    """A proof that cannot fail proves nothing: each sabotage has to be found."""
    from robo_hw.safety import safety_core
    from robo_hw.safety.pacing import Pace

    contract = RobotContract.load("tidy_drawer")
    found = {}

    def violations() -> str:
        return " ".join(prove(contract, sequences=30, seed=3).violations)

    assert violations() == ""
    with monkeypatch.context() as patch:  # runs at the wished rate whatever the path is

        def reckless(self, time, wish):
            self.x += wish * time
            self.rate = wish

        patch.setattr(Pace, "run", reckless)
        found["limits"] = violations()
    with monkeypatch.context() as patch:  # brakes half as hard as planned
        patch.setattr(Pace, "brake", lambda self, time, brake=Pace.brake: brake(self, time / 2))
        found["stop"] = violations()
    with monkeypatch.context() as patch:  # watches nothing
        patch.setattr(safety_core.SafetyCore, "_watch", lambda self, now, elapsed: None)
        found["watchdogs"] = violations()
    with monkeypatch.context() as patch:  # a later fault replaces the first
        raise_fault = safety_core.SafetyCore._raise_fault

        def forgetful(self, *args):
            self.fault = None
            raise_fault(self, *args)

        patch.setattr(safety_core.SafetyCore, "_raise_fault", forgetful)
        found["latch"] = violations()
    assert "of its limit" in found["limits"]
    assert "into a stop bounded by" in found["stop"]
    assert "joint states" in found["watchdogs"]
    assert "camera" in found["watchdogs"]
    assert "running on a chunk" in found["watchdogs"]
    assert "latch" in found["latch"]


def test_the_prover_sees_a_core_that_is_careless_before_and_after_motion(monkeypatch):
    from robo_hw.observation.joint_source import JointSource
    from robo_hw.safety.fault_hold import FaultHold
    from robo_hw.safety.safety_core import SafetyCore

    data = RobotContract.load("tidy_drawer").to_dict()
    data["topics"]["command"]["interface"] = "forward_command"
    data["safety"]["in_fault"], data["deadlines"]["idle"] = "follow_measured", 0.5
    # What a hand may have done since the last state is allowed for: it has to be less than a wrong pose's distance.
    data["deadlines"]["joint_states"] = 0.06
    for joint in data["joints"]:
        joint["following_error"] = 0.3
    contract = RobotContract.from_dict(data)

    def violations(*kinds: str) -> str:
        found = []
        for world in range(40):
            times = np.random.default_rng(world).uniform(0.2, 1.5, len(kinds))
            faults = [FaultAt(float(at), kind, 1.0) for at, kind in zip(times, kinds, strict=True)]
            found += run_sequence(contract, faults, seed=world, seconds=SECONDS).violations
        return " ".join(found)

    def credulous(self, now, states):
        return states.measured.copy()

    cases = {
        ("stray", "disarm"): ((JointSource, "reasons", lambda self, now: []), "the first command lies"),
        ("e_stop", "hand"): ((FaultHold, "position", lambda self, now, states: self._held), "following errors from"),
        ("e_stop", "joints_wrong"): ((JointSource, "sure", True), "from where the arm truly is"),
        ("e_stop", "joints_zeros"): ((FaultHold, "position", credulous), "from where the arm truly is"),
        ("robot_stop",): ((SafetyCore, "_let_go", lambda self, now, reason: None), "after the robot stopped"),
        ("policy_restart",): ((SafetyCore, "_end_hold", lambda self, now, why: None), "nobody had armed"),
        ("policy_dead",): ((SafetyCore, "_end_hold", lambda self, now, why: None), "without a chunk"),
    }
    for kinds, ((owner, name, careless), told) in cases.items():
        assert violations(*kinds) == ""
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, careless)
            assert told in violations(*kinds), kinds


def test_an_arm_that_creeps_when_it_is_armed_again_is_held_where_it_was_seen():
    """The prover once took the arm's present place for the one that the core had been told."""
    contract = random_contract(np.random.default_rng(1))
    assert run_sequence(contract, [FaultAt(1.0, "disarm", 0.0)], seed=1, seconds=SECONDS).violations == []
