"""How chunks are put together: consumed actions, three modes, invisible splices, and position limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore, State
from robo_hw.safety.chunk import check_form, inside_limits
from robo_hw.safety.motion import Motion
from robo_hw.safety.schedule import LEAD, MODES, TemporalEnsemble, actions_at, index_range, nearness, overlap_weights
from robo_hw.safety.watch import StreamWatch

PANDA = RobotContract.load("franka_panda")
HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])


def test_actions_are_placed_by_what_was_consumed_since_the_observation():
    actions = np.arange(10.0)[:, None]
    assert index_range(actions, 5.0, 9) == (9, 5 + LEAD + 10)
    assert actions_at(actions, 5.0, np.arange(9, 12))[:, 0].tolist() == [2.0, 3.0, 4.0]
    # An observation between two actions is met between two actions.
    assert actions_at(actions, 5.25, np.array([9]))[0, 0] == pytest.approx(1.75)


def test_a_chunk_whose_actions_are_all_consumed_sets_nothing():
    start, stop = index_range(np.zeros((4, 1)), 5.0, 11)
    assert start >= stop


def test_the_temporal_ensemble_weighs_as_the_paper_says():
    ensemble = TemporalEnsemble(decay=0.5)
    rows = np.array([[1.0], [2.0]])
    assert ensemble.merge(rows, np.array([3, 4])).tolist() == rows.tolist()
    merged = ensemble.merge(np.array([[4.0], [6.0]]), np.array([4, 5]))
    w = math.exp(-0.5)
    assert merged[0, 0] == pytest.approx((2.0 + w * 4.0) / (1 + w))
    assert merged[1, 0] == 6.0


def test_a_chunk_leaves_the_ensemble_gradually():
    shares = nearness(np.arange(2.0, 20.0), 20)
    assert (np.diff(shares) < 0).all()
    assert shares[0] == pytest.approx(0.9)
    assert 0 < shares[-1] < 0.1
    # One prediction alone is itself, whatever its share.
    rows = np.arange(18.0)[:, None]
    assert TemporalEnsemble().merge(rows, np.arange(18), shares) == pytest.approx(rows)


def test_the_soft_mask_of_real_time_chunking_is_the_papers():
    weights = overlap_weights(np.arange(8.0), frozen=2, overlap=6)
    assert weights[:2].tolist() == [1.0, 1.0]
    for i in range(2, 6):
        c = (6 - i) / (6 - 2 + 1)
        assert weights[i] == pytest.approx(c * (math.exp(c) - 1) / (math.e - 1))
    assert weights[6:].tolist() == [0.0, 0.0]
    assert (np.diff(weights) <= 0).all()


class Follower:
    """An arm that follows exactly, and a policy that knows a smooth motion and looks where on it the arm is."""

    def __init__(self, mode: str, amplitude: float = 0.25, noise: float = 0.0) -> None:
        self.clock = ManualClock(5.0)
        self.core = SafetyCore(PANDA, self.clock, mode=mode)
        self.random = np.random.default_rng(0)
        self.amplitude, self.noise = amplitude, noise
        self.robot, self.place, self.sequence = self.goal(np.array([0.0]))[0], 0.0, 0
        self.times: list[float] = []
        self.positions: list[np.ndarray] = []
        self.splices: list[float] = []
        self.seen = 0

    def goal(self, t: np.ndarray) -> np.ndarray:
        return HOME + self.amplitude * np.sin(1.5 * t[:, None] + np.arange(7))

    def run(self, seconds: float, every: float, latency: float = 0.0, horizon: int = 20, shift: float = 0.0) -> None:
        waiting: list[tuple[float, ActionChunk]] = []
        start, planned = self.clock.now(), -np.inf
        while self.clock.now() < start + seconds:
            now = self.clock.advance(0.01)
            self.core.observe(PANDA.joint_names, self.robot, stamp=now)
            self.core.observe_camera("wrist", int(now * 1000), stamp=now)
            if self.core.state is State.DISARMED:
                self.seen += 1
                if self.seen < 6:
                    start = now  # until it may be armed
                    continue
                self.core.arm()
            if now - planned >= every:
                planned = now
                near = self.place + np.linspace(-0.3, 1.0, 1301)
                for width in (1e-3, 1e-6):
                    self.place = float(near[np.argmin(((self.goal(near) - self.robot) ** 2).sum(axis=1))])
                    near = self.place + np.linspace(-width, width, 2001)
                actions = self.goal(self.place + np.arange(1, horizon + 1) / 20)
                actions += shift * (-1) ** self.sequence + self.random.normal(0, 1, actions.shape) * self.noise
                self.sequence += 1
                # What is seen now is where the last tick sent the arm.
                seen = max(self.times[-1], now - 0.01) if self.times else now
                chunk = ActionChunk(actions, PANDA.joint_names, self.core.epoch, self.sequence, seen)
                waiting.append((now + latency, chunk))
            while waiting and waiting[0][0] <= now:
                if self.core.submit(waiting.pop(0)[1]).accepted:
                    self.splices.append(now)
            command = self.core.tick()
            self.robot = command.positions
            self.times.append(now)
            self.positions.append(command.positions)

    def jerk(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.times[3:]), np.abs(np.diff(np.stack(self.positions), n=3, axis=0)).max(axis=1) / 0.01**3


@pytest.mark.parametrize(("mode", "noise"), [(mode, noise) for noise in (0.0, 1e-4) for mode in MODES])
def test_chunks_of_one_smooth_motion_leave_no_trace_at_their_boundaries(mode, noise):
    follower = Follower(mode, noise=noise)
    follower.run(6.0, every=0.4, latency=0.08)
    assert follower.core.status().rate == pytest.approx(1.0, rel=0.02)
    times, jerk = follower.jerk()
    settled = times > 5.0 + 2.0
    near = np.zeros(len(times), dtype=bool)
    for splice in follower.splices:
        near |= (times > splice) & (times < splice + 0.2)
    worst = np.max if noise == 0 else lambda values: np.sqrt(np.mean(values**2))  # peaks of noise are luck
    assert worst(jerk[settled & near]) <= 1.2 * worst(jerk[settled & ~near])


@pytest.mark.parametrize("mode", ["temporal_ensemble", "real_time"])
def test_the_blending_modes_soften_chunks_that_disagree(mode):
    peaks = {}
    for name in ("latest", mode):
        follower = Follower(name)
        follower.run(4.0, every=0.3, latency=0.05, shift=0.004)
        times, jerk = follower.jerk()
        peaks[name] = jerk[times > 6.5].max()
    assert peaks[mode] < 0.8 * peaks["latest"]


def test_a_slowed_arm_takes_chunks_up_where_it_really_is():
    """Merging by an estimate of latency would skip actions that a slowed arm has not yet done."""
    follower = Follower("latest")
    follower.run(1.5, every=0.4)
    motion = follower.core._motion
    before, now = motion.consumed, follower.clock.now()
    motion.pace.brake(0.2)  # as if limits had held it back
    follower.clock.advance(0.2)
    motion.note(follower.clock.now())
    assert motion.consumed - before < 0.2 * 20 * 0.99
    assert motion.consumed_at(now) == pytest.approx(before)
    assert before < motion.consumed_at(now + 0.1) < motion.consumed


def test_what_is_committed_is_what_will_be_done():
    follower = Follower("real_time")
    follower.run(2.0, every=0.4)
    actions, weights = follower.core.committed(12)
    assert actions.shape == (12, 7)
    assert weights[0] == 1.0
    assert (np.diff(weights) <= 1e-12).all()
    expected = follower.core._motion.consumed + 1  # action 0 is reached one period after the observation
    while follower.core._motion.consumed < expected:
        follower.run(0.01, every=np.inf)
    assert np.allclose(follower.robot, actions[0], atol=0.02)


def test_committed_weights_are_zero_while_nothing_moves():
    core = SafetyCore(PANDA, ManualClock())
    actions, weights = core.committed(5)
    assert actions.shape == (5, 7)
    assert not weights.any()


# Position limits


def lawful(rows: np.ndarray) -> bool:
    low, high = PANDA.array("position").T
    return bool(((rows >= low) & (rows <= high)).all())


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0))
@settings(max_examples=80, deadline=None)
def test_actions_beyond_a_position_limit_are_held_inside_by_shortening_the_whole_step(seed, size):
    random = np.random.default_rng(seed)
    low, high = PANDA.array("position").T
    before = random.uniform(low, high)
    actions = before + np.cumsum(random.normal(0, size, (12, 7)), axis=0)
    held, shortened = inside_limits(actions, before, PANDA)
    assert lawful(held)
    previous = before
    for asked, got in zip(actions, held, strict=True):
        step, taken = asked - previous, got - previous
        share = float(taken @ step / max(step @ step, 1e-12))
        assert -1e-9 <= share <= 1 + 1e-9
        assert np.allclose(taken, share * step, atol=1e-9), "every joint by the same share: the path is kept"
        previous = got
    assert (shortened is None) == lawful(actions)


def test_a_shortened_step_is_logged_with_joint_value_and_limit():
    follower = Follower("latest", amplitude=0.1)
    follower.run(0.5, every=0.4)
    actions = np.tile(follower.robot, (15, 1))
    actions[:, 3] = np.linspace(follower.robot[3], 0.3, 15)  # beyond -0.0698, in steps too small to be nonsense
    result = follower.core.submit(
        ActionChunk(actions, PANDA.joint_names, follower.core.epoch, 99, follower.clock.now())
    )
    assert result.accepted
    event = follower.core.log.of_kind("limited")[-1]
    assert (event.joint, event.limit) == ("panda_joint4", -0.0698)
    assert 0.0 < event.value <= 0.3
    follower.run(0.9, every=np.inf)
    assert lawful(np.stack(follower.positions))


def test_a_gripper_that_is_told_to_close_further_does_not_hold_the_arm_back():
    contract = RobotContract.load("tidy_drawer")
    before = np.array([0, 0, 0, 0, 0, 0, 0.05])
    actions = np.linspace(0.01, 0.1, 10)[:, None] * np.ones(7)
    actions[:, 6] = -0.3
    held, shortened = inside_limits(actions, before, contract)
    assert shortened is None
    assert np.allclose(held[:, :6], actions[:, :6])
    assert not held[:, 6].any()


@given(
    st.one_of(
        st.none(), st.text(max_size=3), st.integers(), st.lists(st.floats(), max_size=7), st.binary(max_size=4),
        st.lists(st.lists(st.floats(), min_size=6, max_size=8), max_size=3), st.just({"a": 1}), st.just([["a"] * 7]),
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_as_actions_is_refused_in_words_or_is_sound(actions):
    chunk = ActionChunk(actions, PANDA.joint_names, 1, 1, 0.0)
    taken, fault = check_form(chunk, PANDA)
    assert (taken is None) != (fault is None)
    if taken is not None:
        assert np.isfinite(taken).all()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="temporal_ensemble"):
        Motion(PANDA, "newest", 0.01)


# Ages


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(-0.5, 0.5)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_sample_is_never_younger_than_its_arrival(steps):
    watch, now, stamp = StreamWatch("s", 0.05), 0.0, 1e6
    arrived = -np.inf
    for wait, drift in steps:
        now += wait
        stamp += wait + drift
        if watch.sample(now, stamp) is None:
            arrived = now
        assert watch.age(now) >= now - arrived - 1e-9


def test_a_slow_clock_of_the_sender_is_followed_and_a_lagging_one_is_not():
    watch = StreamWatch("s", 0.05)
    for i in range(100_000):  # 200 ppm slow over 1000 s
        assert watch.sample(i * 0.01, i * 0.01 * (1 - 2e-4)) is None
        assert watch.age(i * 0.01) < 1e-3
    for i in range(1000):  # one per cent slow: its samples grow old
        watch.sample(1000 + i * 0.01, 999.8 + i * 0.01 * 0.99)
    assert watch.age(1010.0) > 0.05
