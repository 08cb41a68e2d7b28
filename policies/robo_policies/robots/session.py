"""From the settings of `robo-rm run-policy` to a run: every check first, then the connection, and an end in order."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from robo_core import console
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_datasets import DemoStore
from robo_hw import RobotContract, SafetyCore, SteadyClock
from robo_hw.safety.schedule import MODES
from robo_hw.transport import Address, ClientState, Credentials, PolicyClient, PolicyServer
from robo_policies.robots.arm import Arm, ArmError
from robo_policies.robots.arm_threads import ArmThreads
from robo_policies.robots.keys import Terminal
from robo_policies.robots.recording import RunEpisode, open_run_store
from robo_policies.robots.run_loop import RunLoop
from robo_policies.robots.settings import Config
from robo_policies.serving.loading import load, warm_up

_WAIT_FOR_SERVER = 10.0
"""Seconds that a policy server is looked for before the arm is touched."""


def say(text: str) -> None:
    """Show one line; where the terminal is gone, nobody: what shows a line must never end a run."""
    with contextlib.suppress(OSError):
        console.say(text)


def run_policy(config: Config) -> None:
    """See ``robo_policies.commands.run_policy``.

    Raises:
        ConfigError: settings contradict each other.
        ArmError: the terminal, the arm, or its calibration is not as it has to be; or the arm was lost.
        ContractError, ModelError, StoreError, TransportError: the same of contract, policy, store, address.
    """
    contract = _checked(config)
    arm = make_arm(config.robot, contract)
    poses = _start_poses(config.demonstrations, contract)
    loops: list[RunLoop] = []
    ended: list[str] = []

    def press(key: str) -> None:
        for loop in loops:
            loop.press(key)

    def gone() -> None:
        for loop in loops:
            loop.estop("the terminal is gone")
            loop.end("the terminal is gone")

    # A terminal first: without one nobody could stop what is connected next.
    with Terminal(press, gone), contextlib.ExitStack() as stack:
        client = stack.enter_context(_policy(config, contract, arm))
        store = None
        if config.record is not None:
            store = open_run_store(config.record, contract, arm.vector_names, arm.stages)
        clock = SteadyClock()
        core = SafetyCore(contract, clock, mode=config.mode)
        threads = ArmThreads(arm, clock, contract.rates.joint_states)
        facts = {"policy": config.policy or config.policy_address, "robot_type": arm.name, "mode": config.mode}

        def begin() -> RunEpisode | None:
            return None if store is None else RunEpisode(store, config.task, facts)

        loop = RunLoop(
            contract,
            core,
            clock,
            arm,
            threads,
            client,
            begin_episode=begin,
            say=say,
            task=config.task,
            estop_pressed=_file_watch(config.estop_file),
            stop_when_stuck=config.on_progress == "stop",
            start_poses=poses,
        )
        try:
            # Interrupted from here on, it is disconnected.
            say(f"connecting {arm.name}")
            arm.connect()
            threads.start()
            loops.append(loop)
            say(f"connected; {arm.at_disconnect}")
            say("keys: a arm, d disarm, space emergency stop, r reset a fault, q quit, ? all of them")
            with _signals(loop), _quick_switching():
                ended.append(loop.run())
        finally:
            loops.clear()
            say(f"disconnecting: {arm.at_disconnect}")
            hangs = threads.close()
            if hangs:
                say(hangs)
        say(f"ended: {ended[-1]}")
        if config.out is not None:
            out = OutputFolder(config.out, config)
            out.write_metrics(loop.metrics())
            out.announce()
    if threads.lost:
        raise ArmError(threads.lost)


def make_arm(settings: object, contract: RobotContract) -> Arm:
    """The arm that the group ``robot`` chose, not connected."""
    from robo_policies.robots.lerobot_arm import LeRobotArm, LeRobotSettings, make_robot
    from robo_policies.robots.simulated_arm import SimulatedArm, SimulatedSettings

    if isinstance(settings, SimulatedSettings):
        return SimulatedArm(settings, contract)
    if not isinstance(settings, LeRobotSettings):
        raise ConfigError("robot is neither robot=lerobot nor robot=simulated")
    if contract.lerobot is None:
        raise ConfigError(
            f"the contract {contract.robot} has no section lerobot, which says the names and units of LeRobot's "
            f"{settings.type}: add one (docs/lerobot_arms.md)"
        )
    return LeRobotArm(make_robot(settings), contract, settings.type)


def _checked(config: Config) -> RobotContract:
    if (config.policy is None) == (config.policy_address is None):
        raise ConfigError("give policy=DIR, to run it in this process, or policy_address=..., where it is served")
    if config.policy_address is not None:
        if config.reward_model is not None:
            raise ConfigError("reward_model is served beside the policy: give it to robo-rm serve-policy")
        Address.parse(config.policy_address)
    if config.mode not in MODES:
        raise ConfigError(
            f"mode={config.mode!r} is not a way to put chunks together; choose one of: {', '.join(MODES)}"
        )
    if config.on_progress not in ("say", "stop"):
        raise ConfigError(f"on_progress={config.on_progress!r} is neither say nor stop")
    if config.threads < 0:
        raise ConfigError(f"threads={config.threads} must be 0 (torch decides) or more")
    config.watch.validate()
    return RobotContract.load(config.contract)


@contextlib.contextmanager
def _policy(config: Config, contract: RobotContract, arm: Arm) -> Iterator[PolicyClient]:
    """A client of the policy server: of the one that is given, or of one in this process on threads of its own."""
    with contextlib.ExitStack() as stack:
        address = config.policy_address
        credentials = Credentials(config.secret, config.certificates, tuple(config.users), config.shared_folder)
        if address is None:
            loaded = load(config.policy, config.reward_model, config.device, config.cartesian)
            served, progress = loaded.served(contract, config.watch, config.confirm_wider_limits)
            if config.threads:
                import torch

                torch.set_num_threads(config.threads)
            if served is not None:
                unknown = [key for key in served.info.needs if key.startswith("observation.") and not _given(key, arm)]
                if unknown:
                    raise ConfigError(
                        f"the policy in {config.policy} reads {', '.join(unknown)}, which {arm.name} has not"
                    )
                warm_up(served, config.task)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="robo-rm-"))
            address = f"unix:{folder}/policy.sock"
            stack.enter_context(PolicyServer(contract, address, served, progress, report=say))
            credentials = Credentials()
        client = PolicyClient(contract, address, SteadyClock(), task=config.task, credentials=credentials)
        stack.enter_context(client)
        end = time.monotonic() + _WAIT_FOR_SERVER
        while client.status().state is ClientState.CONNECTING and time.monotonic() < end:
            time.sleep(0.02)
        status = client.status()
        if status.state is not ClientState.CONNECTED:
            raise ArmError(f"no policy at {address}: {status.message or status.state.value}; the arm was not connected")
        yield client


def _given(key: str, arm: Arm) -> bool:
    return key == "observation.state" or key.startswith("observation.images.") or key in arm.vector_names


def _start_poses(path: str | None, contract: RobotContract) -> dict[str, tuple[float, float]] | None:
    """Joint -> (low, high) of the demonstrations' first states, in the contract's units; None where none are given."""
    if path is None:
        return None
    from robo_policies.serving.check_store import store_values
    from robo_policies.serving.fit import STATE

    store = DemoStore.open(path)
    values = store_values(store, contract)[STATE]
    if values.problem:
        raise ConfigError(f"demonstrations={path}: {values.problem}")
    first = np.array([values.to_contract(store[i][STATE][:1])[0] for i in range(len(store))], np.float64)
    ends = zip(contract.joint_names, first.min(axis=0), first.max(axis=0), strict=True)
    return {name: (float(low), float(high)) for name, low, high in ends}


def _file_watch(path: str | None) -> Callable[[], str]:
    if path is None:
        return lambda: ""
    watched = Path(path)

    def pressed() -> str:
        return f"emergency stop: the file {watched} exists" if watched.exists() else ""

    return pressed


@contextlib.contextmanager
def _signals(loop: RunLoop) -> Iterator[None]:
    """Ctrl-C and SIGTERM end in order, SIGHUP too; SIGUSR1 is an emergency stop."""
    handlers = {
        signal.SIGINT: lambda *_: loop.end("Ctrl-C"),
        signal.SIGTERM: lambda *_: loop.end("SIGTERM"),
        signal.SIGHUP: lambda *_: loop.end("the terminal is gone"),
        signal.SIGUSR1: lambda *_: loop.estop("emergency stop by SIGUSR1"),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    say(f"emergency stop from elsewhere: kill -USR1 {os.getpid()}")
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quick_switching() -> Iterator[None]:
    """The control loop waits at most so long for another thread; 5 ms is usual, a quarter of its period."""
    before = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()
