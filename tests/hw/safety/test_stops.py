"""Emergency-stop sources and the robot's own stop signals, without a middleware."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robo_hw.safety.emergency_stops import EmergencyStops
from robo_hw.safety.robot_stops import RobotStops

A, B = {"1": "/button_a"}, {"2": "/button_b"}


def stops(heartbeat: float = 0.0) -> EmergencyStops:
    return EmergencyStops({"/estop": heartbeat, "/pedal": heartbeat})


def test_any_source_stops_and_one_does_not_release_what_another_holds():
    made = stops()
    for name in ("/estop", "/pedal"):
        made.speakers(name, {name: f"{name}_node"})
        assert made.update(name, True, 1.0) == f"emergency stop on {name}"
    made.update("/estop", False, 2.0)
    assert made.pressed() == ["the emergency stop on /pedal is still pressed by /pedal_node"]
    made.update("/pedal", False, 3.0)
    assert made.pressed() == []


def test_of_two_on_one_topic_each_releases_itself_where_messages_tell_who_sent_them():
    made = stops()
    made.speakers("/estop", A | B)
    made.update("/estop", True, 1.0, "1")
    made.update("/estop", False, 2.0, "2")
    assert made.pressed() == ["the emergency stop on /estop is still pressed by /button_a"]
    made.update("/estop", False, 3.0, "1")
    assert made.pressed() == []


def test_of_two_on_one_topic_nobody_releases_where_messages_do_not_tell():
    made = stops()
    made.speakers("/estop", A | B)
    made.update("/estop", True, 1.0)
    made.update("/estop", False, 2.0)
    (line,) = made.pressed()
    assert "by /button_a or /button_b; 2 publishers speak there" in line
    made.speakers("/estop", B)
    made.update("/estop", False, 3.0)  # b was never the one, or it has released now
    (line,) = made.pressed()
    assert "by /button_a" in line
    made.speakers("/estop", {"3": "/button_a"})  # it was started again
    made.update("/estop", False, 4.0)
    assert made.pressed() == []


@pytest.mark.parametrize("told", [True, False])
def test_one_that_ended_while_it_held_the_stop_is_released_only_by_its_own_successor(told):
    made = stops()
    made.speakers("/estop", A)
    made.update("/estop", True, 1.0, "1" if told else None)
    made.speakers("/estop", B)
    made.update("/estop", False, 2.0, "2" if told else None)
    assert made.pressed()
    made.speakers("/estop", {"4": "/button_a"})
    made.update("/estop", False, 3.0, "4" if told else None)
    assert made.pressed() == []


def test_a_press_from_before_anybody_was_known_is_held_by_whoever_appears():
    made = stops()
    made.update("/estop", True, 1.0)
    made.speakers("/estop", A | B)
    made.update("/estop", False, 2.0)
    assert made.pressed()


def test_a_key_without_speakers_presses_and_releases():
    made = EmergencyStops({"key": 0.0})
    made.update("key", True, 1.0)
    assert made.pressed() == ["the emergency stop on key is still pressed"]
    made.update("key", False, 1.0)
    assert made.pressed() == []


def test_silence_beyond_the_heartbeat_stops_while_armed_and_forbids_to_arm():
    made = stops(0.5)
    made.update("/estop", False, 1.0)
    assert [line.split(": ")[1] for line in made.problems(1.2)] == ["no message has come; its heartbeat is 0.5 s"]
    made.update("/pedal", False, 1.0)
    assert made.problems(1.2) == []
    made.armed()
    assert made.overdue(1.4) is None
    made.alive("/pedal", 1.5)
    assert "/estop: silent for 0.600 s" in (made.overdue(1.6) or "")
    made.disarmed()
    assert made.overdue(9.0) is None
    assert len(made.problems(9.0)) == 2


def test_a_publisher_that_goes_away_while_armed_stops_once():
    made = stops()
    made.speakers("/estop", A | B)
    assert made.speakers("/estop", A) is None, "nobody is armed"
    made.armed()
    assert made.speakers("/estop", A | B) is None
    assert made.speakers("/estop", B) == "emergency stop on /estop: /button_a went away"
    assert made.speakers("/estop", B) is None


def test_no_sequence_of_presses_and_releases_releases_what_is_held():
    """Whoever pressed and has not released holds, whatever the others say, distinguished or not."""
    for told, steps in itertools.product((True, False), itertools.product((0, 1), (True, False), repeat=3)):
        made = stops()
        made.speakers("/estop", A | B)
        held: set[int] = set()
        for who, pressed in zip(steps[::2], steps[1::2], strict=True):
            made.update("/estop", bool(pressed), 1.0, str(who + 1) if told else None)
            held = held | {who} if pressed else held - {who}
        assert bool(made.pressed()) >= bool(held)
        if told:
            assert bool(made.pressed()) == bool(held)


# The robot's own stops


def test_anything_but_an_ok_value_is_a_stop_and_silence_is_where_there_is_a_heartbeat():
    signals = RobotStops({"/safety mode": ((1, 2), 0.0), "/running": ((True,), 0.5)})
    assert len(signals.problems(0.0)) == 2
    assert signals.update("/safety mode", 1, 1.0) is None
    assert signals.update("/running", True, 1.0) is None
    assert signals.problems(1.2) == []
    assert signals.update("/safety mode", 7, 1.3) == "the robot stopped: /safety mode is 7, not 1 or 2"
    assert signals.problems(1.3) == ["the robot stopped: /safety mode is 7, not 1 or 2"]
    assert signals.update("/safety mode", 2, 1.4) is None
    assert signals.overdue(1.45) is None
    assert "/running is silent for 0.600 s" in (signals.overdue(1.6) or "")
    assert len(signals.problems(1.6)) == 1


@pytest.mark.parametrize("value", [None, "", np.nan, 0, False, [], "on"])
def test_values_that_are_none_of_the_ok_ones_are_stops(value):
    assert RobotStops({"/s": ((1,), 0.0)}).update("/s", value, 0.0) is not None


def test_true_is_not_one():
    assert RobotStops({"/s": ((1,), 0.0)}).update("/s", True, 0.0) is not None
    assert RobotStops({"/s": ((True,), 0.0)}).update("/s", 1, 0.0) is not None
    assert RobotStops({"/s": ((1.0,), 0.0)}).update("/s", 1, 0.0) is None
