"""Our policies and reward models as what the policy server serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_core.console import say
from robo_hw import RobotContract
from robo_hw.transport import Observation, PolicyInfo, ProgressEstimate
from robo_policies.serving.fit import ACTION, IMAGES, STATE, policy_values, reward_rate, reward_values
from robo_policies.serving.values import Values
from robo_rm.monitor.limits import LimitedRun
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.settings import Watch
from robo_rm.monitor.watch import MonitoredRun

if TYPE_CHECKING:
    from robo_policies.cloning.learned import SavedPolicy
    from robo_policies.serving.cartesian import CartesianActions
    from robo_rm.reward_models.protocol import RewardModel

_EARLY = 0.75
"""A frame that comes before this fraction of a period since the last is not a step of the stream."""


def camera_shapes(contract: RobotContract) -> dict[str, tuple[int, int, int]]:
    """Key -> (H, W, 3) of every camera of the contract."""
    return {IMAGES + camera.name: (camera.height, camera.width, 3) for camera in contract.cameras}


def start_poses(
    recorded: Mapping[str, Sequence[float]], values: Values, contract: RobotContract
) -> dict[str, tuple[float, float]]:
    """Joint -> (low, high) of the demonstrations' first states under the contract's names and units.

    ``recorded``: under the names of the demonstrations, as the policy's card has it; ``values``: of their state.
    """
    names = contract.joint_names if values.units is None else values.units.names
    if not all(name in recorded for name in names):
        return {}
    ends = np.sort(values.to_contract(np.array([recorded[name] for name in names], np.float64).T), axis=0)
    return {joint: (float(ends[0, i]), float(ends[1, i])) for i, joint in enumerate(contract.joint_names)}


class ServedLearnedPolicy:
    """A policy of `robo-rm train-policy`, or a LeRobot checkpoint, behind the policy server.

    The caller has checked that it fits the contract (``policy_findings``).
    """

    def __init__(self, policy: SavedPolicy, contract: RobotContract, cartesian: CartesianActions | None = None) -> None:
        self._policy, self._cartesian, self._noticed = policy, cartesian, ""
        values = policy_values(policy, contract)
        self._state, self._actions = values[STATE], values[ACTION]
        shapes = camera_shapes(contract)
        needs: dict[str, tuple[int, ...]] = {key: (size,) for key, size in policy.dims.items() if key != ACTION}
        if cartesian is not None:
            needs[STATE] = (len(contract.joints),)  # the joints, from which a pose is solved
        needs.update({key: shapes[key] for key in policy.cameras})
        trained = (policy.card.get("store") or {}).get("contract_hash") or ""
        self.info = PolicyInfo(
            policy.folder.name,
            policy.kind,
            policy.chunk_size,
            policy.execution_horizon,
            needs,
            trained,
            policy.observation_steps,
            start_poses(policy.card.get("start_poses") or {}, self._state, contract),
        )

    def start(self, task: str) -> ServedLearnedPolicy:
        """Begin an episode. The policies that are served read no instruction."""
        self._policy.reset()
        return self

    def act(self, observation: Observation) -> np.ndarray:
        """(H, A) float32 for the newest observation and the ones that the policy looks back on."""
        now = self._converted(observation.values)
        if self._policy.observation_steps == 1:
            return self._joints(self._policy.act(now), observation)
        past = [self._converted(values) for values in observation.past]
        stacked = {
            key: np.stack([*(values.get(key, now[key]) for values in past), now[key]])[None] for key in self.info.needs
        }
        return self._joints(self._policy.act(stacked)[0], observation)

    def _joints(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        if self._cartesian is None:
            return self._actions.to_contract(actions)
        joints = self._cartesian.to_joints(actions, observation.values[STATE])
        if self._cartesian.notice != self._noticed:
            self._noticed = self._cartesian.notice
            if self._noticed:
                say(f"a chunk was shortened to {len(joints)} actions: {self._noticed}")
        return joints

    def _converted(self, values: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The observation in the units of the policy's demonstrations."""
        if STATE not in values:
            return values
        if self._cartesian is not None and self._cartesian.reads_pose:
            return {**values, STATE: self._cartesian.pose_state(values[STATE])}
        if self._state.units is None:
            return values
        return {**values, STATE: self._state.from_contract(values[STATE])}


class ServedRewardModel:
    """A reward model that follows the episode frame by frame, and an advisory monitor of what it says.

    Args:
        model: the reward model.
        contract: of the arm.
        watch: when to ask for help.
        monitor: its calibration, from the model folder, or None.
    """

    def __init__(
        self,
        model: RewardModel,
        contract: RobotContract,
        watch: Watch | None = None,
        monitor: MonitorCalibration | None = None,
    ) -> None:
        self._model, self._watch, self._monitor = model, watch or Watch(), monitor
        self._watch.validate()
        shapes = camera_shapes(contract)
        self.needs: Mapping[str, tuple[int, ...]] = {key: shapes[key] for key in model.cameras}
        if model.state_key == STATE:
            self.needs = {**self.needs, STATE: (len(contract.joints),)}
        self.stages = tuple(model.stages)
        self.rate = reward_rate(model) or contract.rates.actions
        self._state = reward_values(model, contract)

    def start(self, task: str) -> ProgressFollower:
        """Begin an episode."""
        watch = self._watch
        run = LimitedRun(watch) if self._monitor is None else MonitoredRun(self._monitor, watch.false_alarm_rate)
        return ProgressFollower(self._model, task, self.rate, run, self._state)


class ProgressFollower:
    """One episode. Frames come at the bridge's rate; the model is stepped at its own, as in training."""

    def __init__(
        self,
        model: RewardModel,
        task: str,
        rate: float,
        run: LimitedRun | MonitoredRun,
        state: Values | None = None,
    ) -> None:
        self._model, self._run, self._state = model, run, state or Values()
        self._stream = model.stream(task=task or None)
        self._period = 1.0 / rate
        self._due: float | None = None
        self._last: ProgressEstimate | None = None

    def step(self, observation: Observation) -> ProgressEstimate:
        """The estimate for this frame, or the last one where it is not yet time for the next."""
        at = observation.observed_at
        if self._last is not None and self._due is not None and at < self._due:
            return self._last
        frames = {key: observation.values[key] for key in self._model.cameras}
        state = observation.values.get(self._model.state_key) if self._model.state_key else None
        if state is not None and self._model.state_key == STATE:
            state = self._state.from_contract(state)
        estimate = self._stream.step(frames, state)
        verdict = self._run.update(at, estimate.progress, estimate.uncertainty, frames)
        # Steps keep their rhythm where frames are a little early or late, and begin a new one after a gap.
        late = self._due is None or at - self._due > self._period
        beat = at if late or self._due is None else self._due + (1 - _EARLY) * self._period
        self._due = beat + _EARLY * self._period
        self._last = ProgressEstimate(
            estimate.progress,
            estimate.stage,
            self._model.stages[estimate.stage],
            estimate.uncertainty,
            at,
            verdict.state,
            verdict.false_alarm_rate,
            verdict.message,
        )
        return self._last
