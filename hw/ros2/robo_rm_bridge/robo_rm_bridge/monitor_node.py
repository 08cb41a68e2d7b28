"""The progress monitor: asks a reward model how far along the task is, and says when help is needed.

Publishes ~/progress and ~/uncertainty (Float32), ~/stage and ~/verdict (String), ~/advice (String: "help: why" or
"stop: why") and diagnostics. Advisory: nothing in the safety core looks at it. With on_stalled, on_failing or
on_unknown set to "stop" it calls the bridge's ~/disarm as a person would.
"""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.observation_buffer import parse_vectors, unmet_needs
from robo_hw.transport import ClientState, PolicyClient, ProgressEstimate
from robo_rm_bridge import reporting
from robo_rm_bridge.listening import Listener
from robo_rm_bridge.nodes import steady_timer
from robo_rm_bridge.policy_access import ACCESS, credentials
from robo_rm_bridge.settings import Setting, declare

_ACTIONS = ("nothing", "help", "stop")
SETTINGS = (
    Setting("contract", "", "the robot contract: a YAML file, or the name of a packaged example", required=True),
    Setting("policy_address", "", "where robo-rm serve-policy reward_model=FOLDER listens", required=True),
    *ACCESS,
    Setting("task", "", "the instruction given to the reward model"),
    Setting("vectors", [""], "further inputs of the reward model, each observation.NAME=/topic"),
    Setting("rate", 10.0, "observations per second given to the reward model", 0.5, 60.0),
    Setting("on_stalled", "help", "what to do when the run stands still or takes too long", choices=_ACTIONS),
    Setting("on_failing", "help", "what to do when progress falls", choices=_ACTIONS),
    Setting("on_unknown", "help", "what to do when the reward model does not know the situation", choices=_ACTIONS),
    Setting("disarm_service", "robo_rm_policy/disarm", "the service that stop calls"),
)


class MonitorNode(Node):
    """See the module.

    Raises:
        HardwareError: a parameter or the contract is wrong.
    """

    def __init__(self) -> None:
        super().__init__("robo_rm_monitor")
        self.settings = declare(self, SETTINGS)
        self.contract = RobotContract.load(self.settings.contract)
        self._vectors = parse_vectors(self.settings.vectors)
        self._listener = Listener(self, self.contract, self._vectors, 0.5)
        clock = self._listener.clock
        address, task = self.settings.policy_address, self.settings.task
        access = credentials(self.settings)
        self._client = PolicyClient(self.contract, address, clock, role="monitor", task=task, credentials=access)
        self._progress = self.create_publisher(Float32, "~/progress", 10)
        self._uncertainty = self.create_publisher(Float32, "~/uncertainty", 10)
        self._stage = self.create_publisher(String, "~/stage", 10)
        self._verdict = self.create_publisher(String, "~/verdict", 10)
        self._advice = self.create_publisher(String, "~/advice", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._disarm = self.create_client(Trigger, self.settings.disarm_service)
        self._estimate: ProgressEstimate | None = None
        self._given = ""
        self._was_armed = False
        self._client.connect()
        steady_timer(self, 1.0 / self.settings.rate, self._look)
        steady_timer(self, 1.0, self._report)

    def finish(self) -> bool:
        """Close the connection and the cameras."""
        self._client.close()
        self._listener.close()
        return True

    def _look(self) -> None:
        self._listener.poll()
        armed = self._listener.state in ("holding", "running", "stopping")
        if armed and not self._was_armed:
            self._client.start_episode(self.settings.task)
            self._given = ""
        self._was_armed = armed
        estimate = self._client.poll().progress
        if estimate is not None:
            self._estimate = estimate
            self._progress.publish(Float32(data=float(estimate.progress)))
            self._uncertainty.publish(Float32(data=float(estimate.uncertainty)))
            self._stage.publish(String(data=estimate.stage_name))
            self._verdict.publish(String(data=estimate.verdict))
            self._advise(estimate)
        server = self._client.status().server
        if server is None or self._problems():
            return
        observation = self._listener.buffer.snapshot(server.progress_needs, self._listener.clock.now())
        if observation is not None:
            self._client.send_observation(
                observation.names,
                observation.positions,
                images=observation.images,
                arrays=observation.arrays,
                observed_at=observation.observed_at,
                want=("progress",),
            )

    def _advise(self, estimate: ProgressEstimate) -> None:
        """Once for each kind of trouble in an episode, and only while the policy runs."""
        actions = {
            "stalled": self.settings.on_stalled,
            "failing": self.settings.on_failing,
            "unknown": self.settings.on_unknown,
        }
        action = actions.get(estimate.verdict, "nothing")
        if not estimate.alarm:
            self._given = ""
        if action == "nothing" or self._listener.state != "running" or self._given == action:
            return
        self._given = action
        self._advice.publish(String(data=f"{action}: {estimate.message}"))
        self.get_logger().warning(f"{action}: {estimate.message}")
        if action == "stop":
            if self._disarm.service_is_ready():
                self._disarm.call_async(Trigger.Request())
            else:
                self.get_logger().warning(f"no service {self.settings.disarm_service}: nobody stops the arm")

    def _problems(self) -> list[str]:
        status = self._client.status()
        if status.state is not ClientState.CONNECTED or status.server is None:
            return [f"no server at {self.settings.policy_address}: {status.message or status.state.value}"]
        if not status.server.has_progress:
            return ["the server serves no reward model; start robo-rm serve-policy with reward_model=FOLDER"]
        return unmet_needs(status.server.progress_needs, self.contract, self._vectors)

    def _report(self) -> None:
        problems, estimate = self._problems(), self._estimate
        values: dict[str, object] = {"advice": self._given}
        level, message = reporting.OK, "waiting for the first estimate"
        if estimate is not None:
            names = ("progress", "stage_name", "uncertainty", "verdict", "false_alarm_rate")
            values |= {name: getattr(estimate, name) for name in names}
            message = estimate.message or f"{estimate.progress:.0%}, {estimate.stage_name}"
            level = reporting.WARN if estimate.alarm else reporting.OK
        if problems:
            level, message = reporting.WARN, "; ".join(problems)
        entry = reporting.entry(f"{self.get_name()}: progress", level, message, values, self.contract.robot)
        self._diagnostics.publish(reporting.stamped([entry], self.get_clock().now().to_msg()))


NODE = MonitorNode
