"""Status and diagnostics of the policy node: plain names and values in the standard diagnostic messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.states import Fault, State, Status
from robo_hw.safety.events import Event, EventLog
from robo_hw.safety.safety_core import SafetyCore
from robo_hw.safety.timing import LoopTiming, Quantiles
from robo_hw.transport import ClientState, ClientStatus
from robo_rm_bridge.conversions import qos

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger
    from rclpy.node import Node
    from rclpy.publisher import Publisher

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
_HUNG_AFTER = 1.0
"""Seconds without an answer to an observation, beyond the contract's deadline, after which a policy counts as hung."""
_CLIENT = (
    "server_epoch", "connections", "sent", "not_sent", "chunks", "stale", "errors", "round_trip", "inference", "uplink",
    "downlink", "clock_offset", "busy",
)  # fmt: skip
_ERRORS, _WARNINGS = ("fault", "rejected"), ("stop", "degraded", "dropped", "stream", "warning")


def entry(name: str, level: bytes, message: str, values: Mapping[str, object], hardware: str = "") -> DiagnosticStatus:
    """One diagnostic status; numbers are written short, None as nothing."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)


def stamped(entries: list[DiagnosticStatus], stamp: Time) -> DiagnosticArray:
    """Entries under one stamp."""
    message = DiagnosticArray(status=entries)
    message.header.stamp = stamp
    return message


def core_entry(node: str, contract: RobotContract, status: Status, active: bool) -> DiagnosticStatus:
    """What the safety core is doing; the fault with joint, value and limit."""
    fault = status.fault
    values: dict[str, object] = {
        "state": status.state.value,
        "active": active,
        "robot": contract.robot,
        "contract": contract.hash,
        "epoch": status.epoch,
        "consumed": status.consumed,
        "rate": status.rate,
        "stop_time": status.stop_time,
        "degraded": " ".join(status.degraded),
        "steady_time": status.time,
        "fault.cause": fault.cause if fault else "",
        "fault.message": fault.message if fault else "",
        "fault.joint": fault.joint if fault else None,
        "fault.value": fault.value if fault else None,
        "fault.limit": fault.limit if fault else None,
        "fault.since": fault.time if fault else None,
    }
    values |= {f"count.{kind}": count for kind, count in sorted(status.counts.items())}
    if fault is not None:
        return entry(f"{node}: safety core", ERROR, f"fault: {fault.message}", values, contract.robot)
    if status.degraded:
        return entry(f"{node}: safety core", WARN, f"slower: {' '.join(status.degraded)} late", values, contract.robot)
    level = WARN if status.state is State.STOPPING else OK
    return entry(f"{node}: safety core", level, status.state.value, values, contract.robot)


def loop_entry(node: str, timing: LoopTiming, latency: Quantiles) -> DiagnosticStatus:
    """The control loop's regularity and the time from observation to motion."""
    p50, p99 = timing.errors.quantiles(0.5, 0.99)
    slow50, slow99 = latency.quantiles(0.5, 0.99)
    level, message = (WARN, "the period is irregular: is the computer overloaded?") if p99 > 0.5 else (OK, "regular")
    values = {
        "period": timing.period,
        "ticks": timing.ticks,
        "late": timing.late,
        "period_error.p50": p50,
        "period_error.p99": p99,
        "latency.p50": slow50,
        "latency.p99": slow99,
    }
    return entry(f"{node}: control loop", level, message, values)


Loop = tuple[LoopTiming, Quantiles]
"""The control loop's period, and the time from observation to motion."""


@dataclass(frozen=True)
class PolicyReport:
    """What is known of the policy.

    ``problems``: why it does not fit; ``missing``: what it waits for; ``waiting``: seconds since an observation that
    was not answered.
    """

    client: ClientStatus
    problems: list[str]
    missing: list[str]
    waiting: float


def policy_entry(node: str, report: PolicyReport, patience: float) -> DiagnosticStatus:
    """The policy server: connected, refused, whether it fits this robot, and whether it answers.

    ``patience``: s without an answer that are an error.
    """
    status, problems, missing, waiting = report.client, report.problems, report.missing, report.waiting
    server = status.server
    values = {
        "state": status.state.value,
        "policy": server.policy.name if server and server.policy else "",
        "kind": server.policy.kind if server and server.policy else "",
        **{name: getattr(status, name) for name in _CLIENT},
        "waiting": waiting,
    }
    name = f"{node}: policy"
    if status.state is not ClientState.CONNECTED:
        return entry(
            name, ERROR if status.state is ClientState.REFUSED else WARN, status.message or "no server", values
        )
    if problems:
        return entry(name, ERROR, "; ".join(problems), values)
    if waiting > patience:
        text = f"the policy hangs: no answer to an observation for {waiting:.1f} s, though its server is connected"
        return entry(name, ERROR, text, values)
    if missing:
        return entry(name, WARN, "no observation: " + "; ".join(missing), values)
    if status.policy_error:
        return entry(name, WARN, status.policy_error, values)
    return entry(name, OK, "connected", values)


def stops_entry(node: str, blocked: list[str]) -> DiagnosticStatus:
    """Emergency stops, the robot's own stops, and publishers that should not be there: why arming would be refused."""
    return entry(f"{node}: stops", WARN if blocked else OK, "; ".join(blocked) or "released", {"count": len(blocked)})


class EventLogger:
    """Writes the core's new events to a node's log."""

    def __init__(self, log: EventLog, logger: RcutilsLogger) -> None:
        self._log, self._logger = log, logger
        self._reported = 0

    def tell(self) -> None:
        """Write what is new."""
        total = sum(self._log.counts.values())
        if total == self._reported:
            return
        events: list[Event] = list(self._log)[-min(total - self._reported, len(self._log)) :]
        self._reported = total
        for event in events:
            text = f"{event.kind}: {event.message}"
            # Three lines, because rclpy refuses another severity from the same line.
            if event.kind in _ERRORS:
                self._logger.error(text)
            elif event.kind in _WARNINGS:
                self._logger.warning(text)
            else:
                self._logger.info(text)


class Reporter:
    """Publishes status (on every change and once a second) and diagnostics (``rate`` per second)."""

    def __init__(self, node: Node, contract: RobotContract, rate: float) -> None:
        self._node, self._contract, self._rate = node, contract, rate
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._status = node.create_publisher(DiagnosticArray, contract.status.name, qos(contract.status))
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._key: tuple[State, Fault | None, bool] | None = None
        self._status_at = self._diagnostics_at = -np.inf

    def status(self, now: float, core: SafetyCore, active: bool) -> None:
        """Publish what the core does, where that is news or a second has passed."""
        key = (core.state, core.fault, active)
        if key != self._key or now - self._status_at >= 1.0:
            self._key, self._status_at = key, now
            self._publish(self._status, [core_entry(self._name, self._contract, core.status(), active)])

    def due(self, now: float) -> bool:
        """Whether diagnostics are due; they count as published then."""
        if now - self._diagnostics_at < 1.0 / self._rate:
            return False
        self._diagnostics_at = now
        return True

    def diagnostics(self, core: SafetyCore, active: bool, loop: Loop, policy: PolicyReport, blocked: list[str]) -> None:
        """Publish everything that a person at the robot may want to know."""
        patience = self._contract.deadlines.actions + _HUNG_AFTER
        entries = [
            core_entry(self._name, self._contract, core.status(), active),
            loop_entry(self._name, *loop),
            policy_entry(self._name, policy, patience),
            stops_entry(self._name, blocked),
        ]
        self._publish(self._diagnostics, entries)

    def _publish(self, publisher: Publisher, entries: list[DiagnosticStatus]) -> None:
        publisher.publish(stamped(entries, self._node.get_clock().now().to_msg()))

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_publisher(self._status)
        self._node.destroy_publisher(self._diagnostics)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
