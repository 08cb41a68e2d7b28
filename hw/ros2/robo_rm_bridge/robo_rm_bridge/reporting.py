"""Status and diagnostics of the policy node: plain names and values in the standard diagnostic messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from robo_hw.contract import RobotContract
from robo_hw.states import State, Status
from robo_hw.transport import ClientState, ClientStatus
from robo_rm_bridge.timing import LoopTiming, Spread

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def entry(name: str, level: bytes, message: str, values: Mapping[str, Any], hardware: str = "") -> DiagnosticStatus:
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
    values: dict[str, Any] = {
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


def loop_entry(node: str, timing: LoopTiming, latency: Spread) -> DiagnosticStatus:
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


def policy_entry(node: str, status: ClientStatus, problems: list[str], missing: list[str]) -> DiagnosticStatus:
    """The policy server: connected, refused, and whether it fits this robot."""
    server = status.server
    values = {
        "state": status.state.value,
        "policy": server.policy.name if server and server.policy else "",
        "kind": server.policy.kind if server and server.policy else "",
        "server_epoch": status.server_epoch,
        "connections": status.connections,
        "sent": status.sent,
        "not_sent": status.not_sent,
        "chunks": status.chunks,
        "stale": status.stale,
        "errors": status.errors,
        "round_trip": status.round_trip,
        "inference": status.inference,
    }
    name = f"{node}: policy"
    if status.state is not ClientState.CONNECTED:
        return entry(
            name, ERROR if status.state is ClientState.REFUSED else WARN, status.message or "no server", values
        )
    if problems:
        return entry(name, ERROR, "; ".join(problems), values)
    if missing:
        return entry(name, WARN, "no observation: " + "; ".join(missing), values)
    if status.policy_error:
        return entry(name, WARN, status.policy_error, values)
    return entry(name, OK, "connected", values)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
