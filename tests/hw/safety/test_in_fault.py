"""What is commanded in a fault: nothing, or where the arm truly is; never where only a driver says that it is."""

from __future__ import annotations

import numpy as np
import pytest

from robo_hw import Command, State
from tests.hw.conftest import Arm, following


def test_in_a_fault_a_controller_that_holds_by_itself_is_sent_nothing():
    arm = Arm().armed(running=True)
    arm.core.estop("button")
    arm.step(80)
    assert arm.core.state is State.FAULT
    arm.at = arm.at + np.array([1.2, 0, 0, 0, 0, 0])
    for _ in range(500):
        assert arm.step() is None


def test_in_a_fault_a_controller_that_keeps_commands_is_told_where_the_arm_is():
    arm = following().armed(running=True)
    arm.core.estop("button")
    held = arm.step(80)
    assert arm.core.state is State.FAULT
    assert held is not None
    limit = arm.contract.array("following_error")
    hand = np.array([1.2, 0, 0, 0, 0, 0]) / 100
    for i in range(300):
        if i < 100:
            arm.at = arm.at + hand
        command = arm.step(follow=False)
        assert command is not None, i
        assert (np.abs(command.positions - arm.at) <= limit).all()
        assert not command.velocities.any()
    assert np.abs(command.positions - held.positions).max() > 1.0


def silent(arm: Arm, seconds: float) -> Command | None:
    """Nothing is heard of the arm."""
    command = None
    for _ in range(round(seconds / arm.dt)):
        arm.clock.advance(arm.dt)
        command = arm.core.tick()
    return command


def test_an_arm_that_was_moved_while_its_driver_was_silent_is_followed_once_it_rests():
    arm = following().armed()
    arm.core.estop("button")
    arm.step(20, follow=False)
    assert silent(arm, 1.0) is None
    arm.at = arm.at + np.array([1.0, 0, 0, 0, 0, 0])
    for _ in range(100):  # a hand still moves it
        arm.at = arm.at + np.array([0.01, 0, 0, 0, 0, 0])
        assert arm.step(follow=False) is None
    commands = [arm.step(follow=False) for _ in range(150)]
    assert not any(commands[:95]), "a second at rest"
    assert np.array_equal(commands[-1].positions, arm.at)
    arm.at = arm.at + np.array([0.02, 0, 0, 0, 0, 0])
    for _ in range(50):  # from then on every motion of the hand
        arm.at = arm.at + np.array([0.02, 0, 0, 0, 0, 0])
        command = arm.step(follow=False)
        assert (np.abs(command.positions - arm.at) <= arm.contract.array("following_error")).all()


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("quiet", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("wrong", [0.19, 0.15])
def test_a_wrong_pose_that_a_driver_says_for_less_than_a_second_is_not_followed(running, quiet, wrong):
    """Neither after a silence, in which a hand could have moved the arm there, nor at once and within state_jump."""
    arm = following().armed(running)
    arm.core.estop("button")
    arm.step(80)
    assert arm.core.state is State.FAULT
    true = arm.at.copy()
    silent(arm, quiet)
    values = true + wrong * np.array([1, -1, 1, 0, 0, 1])
    for _ in range(95):
        command = arm.step(follow=False, values=values)
        assert command is None or (np.abs(command.positions - true) < 0.1).all()
    for _ in range(95):  # the true one, with the step back to it
        command = arm.step(follow=False)
        assert command is None or (np.abs(command.positions - true) < 0.1).all()


def test_a_driver_that_was_silent_and_says_the_same_pose_again_is_believed_at_once():
    """On a bad network there is always a silence; it must not end what only a step may end."""
    arm = following().armed()
    arm.core.estop("button")
    arm.step(20)
    for _ in range(3):
        assert silent(arm, 0.1) is None
        arm.step(6)
    for _ in range(100):
        arm.at = arm.at + np.array([0.02, 0, 0, 0, 0, 0])
        command = arm.step(follow=False)
        assert (np.abs(command.positions - arm.at) <= arm.contract.array("following_error")).all()


def test_a_hand_that_takes_the_arm_right_after_a_stop_is_followed_without_a_rest():
    arm = following().armed(running=True)
    arm.core.estop("button")
    arm.step(80)
    for _ in range(100):
        arm.at = arm.at + np.array([0.02, 0, 0, 0, 0, 0])
        command = arm.step(follow=False)
        assert (np.abs(command.positions - arm.at) <= arm.contract.array("following_error")).all()


def in_fault(arm: Arm, cause: str, **said) -> Arm:
    if cause == "e-stop":
        arm.core.estop("button")
    if cause != "holding":
        arm.step(80, follow=cause == "running", **said)
    return arm


@pytest.mark.parametrize("cause", ["holding", "running", "e-stop"])
@pytest.mark.parametrize("silent", [0.0, 0.3, 5.0])
def test_a_driver_that_begins_anew_with_zeros_moves_nothing(cause, silent):
    arm = in_fault(following().armed(running=cause == "running"), cause)
    for _ in range(round(silent / arm.dt)):
        arm.clock.advance(arm.dt)
        arm.core.tick()
    true = arm.at.copy()
    arm.step(60, follow=False, values=np.zeros(6))
    assert arm.core.state is State.FAULT
    for _ in range(200):
        command = arm.step(follow=False, values=np.zeros(6))
        assert command is None or np.abs(command.positions - true).max() < 0.2


@pytest.mark.parametrize("cause", ["holding", "running", "e-stop"])
@pytest.mark.parametrize("wrong", [0.001, 0.5, 1.0])
def test_a_pose_that_no_arm_could_have_got_to_is_not_followed_in_a_fault(cause, wrong):
    arm = in_fault(following().armed(running=cause == "running"), cause)
    true = arm.at.copy()
    arm.step(60, follow=False, values=np.full(6, wrong))
    assert arm.core.state is State.FAULT
    for _ in range(200):
        assert arm.step(follow=False, values=np.full(6, wrong)) is None
    arm.at = true  # and nothing is until a person has looked
    assert arm.step(100, follow=False) is None
    arm.core.reset_fault()
    arm.armed()


@pytest.mark.parametrize("names", [("driver", "echo"), ("", "")])
def test_an_echo_of_the_command_does_not_keep_the_hold_where_the_arm_no_longer_is(names):
    """A node that repeats commands as joint states contradicts the driver once the arm is moved by hand."""
    arm = following()
    arm.settle(publisher=names[0])
    arm.core.arm()
    arm.step(publisher=names[0])
    arm.core.estop("button")
    held = arm.step(20, publisher=names[0]).positions
    leash = arm.contract.array("following_error")
    gone = 0
    for i in range(400):
        arm.at = arm.at + np.array([1.2, 0, 0, 0, 0, 0]) / 100 * (i < 100)
        arm.clock.advance(arm.dt / 2)
        arm.say(publisher=names[0])
        arm.clock.advance(arm.dt / 2)
        arm.say(held, publisher=names[1])
        command = arm.core.tick()
        gone += command is None
        assert command is None or (np.abs(command.positions - arm.at) <= leash).all(), i
    assert gone > 200


def test_an_arm_that_sags_in_a_fault_does_not_sink_all_the_way():
    arm = following().armed()
    arm.core.estop("button")
    arm.step(20, follow=False)
    held = arm.step(follow=False).positions
    for _ in range(1000):
        command = arm.step(follow=False)
        arm.at = command.positions - 0.05  # the weight pulls it a little below what is commanded
    assert np.array_equal(command.positions, held)
