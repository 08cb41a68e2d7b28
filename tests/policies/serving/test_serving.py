"""From recordings to a served policy: what fits is served and checked, what does not is refused by field."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml
from policy_credentials import tls_credentials

from robo_core.cli.main import main
from robo_core.errors import ConfigError, ModelError
from robo_datasets import DemoStore
from robo_hw import RobotContract
from robo_hw.transport import ClientState, Credentials, Observation, PolicyClient, PolicyServer, Timeouts
from robo_policies import load_policy, train_policy
from robo_policies.cloning.settings import ActSettings, CloningSettings
from robo_policies.serving.check_store import action_findings
from robo_policies.serving.deploy_check import deploy_check, rate_findings
from robo_policies.serving.dry_run import DryRun, dry_run
from robo_policies.serving.fit import GO, NO_GO, WARN, contract_finding, policy_findings, wider_findings
from robo_policies.serving.loading import Loaded, load
from robo_policies.serving.served import ServedLearnedPolicy
from robo_rm.training.budget import Budget

ARM = RobotContract.load("tidy_drawer")
HOME = np.array([0.0, 0.0, 0.0, 0.0, 1.57, 0.0, 0.5])
QUICK = Timeouts(retry=0.02, heartbeat=0.1)
FEATURES = {
    "observation.images.front": {"shape": (128, 128, 3), "dtype": "uint8"},
    "observation.images.wrist": {"shape": (128, 128, 3), "dtype": "uint8"},
    "observation.state": {"shape": (7,), "dtype": "float32", "names": list(ARM.joint_names)},
    "observation.environment_state": {"shape": (3,), "dtype": "float32"},
    "action": {"shape": (7,), "dtype": "float32", "names": list(ARM.joint_names)},
}


def contract_with(**changes) -> RobotContract:
    data = ARM.to_dict()
    for path, value in changes.items():
        place = data
        *way, last = path.split("__")
        for key in way:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    return RobotContract.from_dict(data)


def until(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    """Two recordings in which the arm swings slowly."""
    path = tmp_path_factory.mktemp("serving") / "demos.zarr"
    made = DemoStore.create(
        path, FEATURES, 20, ["swing"], robot="arm", contract_hash=ARM.hash, contract=ARM.to_dict(), codec="lossless"
    )
    for seed in range(2):
        t = np.arange(60)[:, None] / 20
        swing = HOME + 0.2 * np.sin(t + seed + np.arange(7)) * [1, 1, 1, 1, 0.5, 1, 0.5]
        with made.writer(task="swing", success=True) as episode:
            for i in range(59):
                picture = np.full((128, 128, 3), i, np.uint8)
                episode.add(
                    {
                        "observation.images.front": picture,
                        "observation.images.wrist": picture,
                        "observation.state": swing[i].astype(np.float32),
                        "observation.environment_state": np.zeros(3, np.float32),
                        "action": swing[i + 1].astype(np.float32),
                    },
                    timestamp=i / 20,
                    stage=0,
                )
    return DemoStore.open(path)


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory) -> Path:
    """A policy trained for a moment from the recordings."""
    out = tmp_path_factory.mktemp("policies") / "swinger"
    settings = ActSettings(
        chunk_size=16, execution_horizon=5, dim_model=32, n_heads=2, dim_feedforward=64, n_encoder_layers=1
    )
    train_policy(store, out, Budget(120), settings, training=CloningSettings(learning_rate=3e-3, precision="fp32"))
    return out


def verdicts(findings, part: str) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings if finding.part == part}


def detail(findings, part: str, check: str) -> str:
    return next(finding.detail for finding in findings if (finding.part, finding.check) == (part, check))


def test_the_contract_goes_from_the_store_into_the_checkpoint(folder):
    card = load_policy(folder, "cpu").card
    assert card["store"]["contract_hash"] == ARM.hash
    assert RobotContract.from_dict(card["store"]["contract"]).hash == ARM.hash


def test_deploy_check_says_go_for_policy_store_and_contract_of_one_arm(folder, store, tmp_path, capsys):
    code = main(
        ["deploy-check", f"policy={folder}", f"store={store.path}", "contract=tidy_drawer", f"out={tmp_path}/check",
         "device=cpu"]
    )  # fmt: skip
    output = capsys.readouterr().out
    assert code == 0, output
    assert "GO, as far as this can see" in output
    assert "emergency stop" in output
    metrics = json.loads((tmp_path / "check" / "metrics.json").read_text())
    assert metrics["go"] is True
    assert metrics["faults"] == 0
    assert metrics["chunks"] == metrics["chunks_accepted"] >= 10
    assert 0 < metrics["latency_p50"] <= metrics["latency_p99"]
    assert max(metrics["worst_velocity"], metrics["worst_acceleration"], metrics["worst_jerk"]) <= 1 + 1e-6
    findings = json.loads((tmp_path / "check" / "findings.json").read_text())
    assert {"contract", "store", "checkpoint", "rates", "policy", "dry run"} == {
        finding["part"] for finding in findings
    }


def test_deploy_check_says_no_go_and_names_the_field_of_another_contract(folder, store, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(contract_with(gripper__open=0.9).to_dict()))
    arguments = [f"policy={folder}", f"contract={other}", "device=cpu"]
    assert main(["deploy-check", f"store={store.path}", *arguments]) == 1
    output = "".join(capsys.readouterr().out.split("│")).replace("\n", " ")
    assert "gripper.open" in output
    assert "not tried" in output
    assert main(["serve-policy", f"listen={tmp_path}/x.sock", *arguments]) == 2
    error = capsys.readouterr().err
    assert "gripper.open: 1.0 in the checkpoint, 0.9 in this contract" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["store=nowhere.zarr", "contract=tidy_drawer"], "no demo store"),
        (["store={store}", "contract=tidy_drawr"], "no such file"),
        (["store={store}", "contract=tidy_drawer", "mode=fast"], "mode='fast'"),
        (["store={store}", "contract=tidy_drawer", "episodes=0"], "episodes=0"),
    ],
)
def test_deploy_check_with_a_wrong_command_exits_with_2(folder, store, capsys, arguments, match):
    given = [argument.format(store=store.path) for argument in arguments]
    assert main(["deploy-check", f"policy={folder}", *given]) == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "check", "match"),
    [
        ({"rates__actions": 10.0}, "action rate", "trained at 20 Hz"),
        ({"safety__max_horizon": 8}, "chunk length", "max_horizon 8"),
        ({"joints__0__name": "waist"}, "joints", "action 0 is 'base_yaw', joint 0 of the contract is 'waist'"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_by_name(folder, change, check, match):
    policy = load_policy(folder, "cpu")
    findings = policy_findings(policy, contract_with(**change))
    assert verdicts(findings, "checkpoint")[check] == NO_GO
    assert match in detail(findings, "checkpoint", check)
    with pytest.raises(ModelError, match="does not fit the contract"):
        Loaded(policy, None).served(contract_with(**change))


def test_a_checkpoint_that_does_not_say_its_contract_is_a_warning():
    assert contract_finding("checkpoint", ARM, None, None).verdict == WARN
    assert contract_finding("checkpoint", ARM, ARM.hash, None).verdict == GO
    assert contract_finding("checkpoint", ARM, "0" * 64, None).verdict == NO_GO


def test_where_the_demonstrations_began_is_kept_and_served(folder, store):
    first = np.array([store[i]["observation.state"][0] for i in range(len(store))], np.float64)
    served, _ = Loaded(load_policy(folder, "cpu"), None).served(ARM)
    ranges = [(low, high) for low, high in zip(first.min(axis=0), first.max(axis=0), strict=True)]
    assert served.info.start_poses == dict(zip(ARM.joint_names, ranges, strict=True))


def test_a_contract_that_differs_in_deployment_is_a_go_and_named():
    tighter = contract_with(robot="left_arm", joints__0__velocity=2.0)
    found = contract_finding("checkpoint", tighter, ARM.hash, ARM.to_dict())
    assert found.verdict == GO
    assert "joints[base_yaw].velocity: 4.0 in the checkpoint, 2.0 in this contract" in found.detail
    assert wider_findings("checkpoint", tighter, ARM.to_dict()) == []
    assert "write contract: 2" in contract_finding("checkpoint", ARM, "0" * 64, {"contract": 1}).detail


def test_wider_limits_than_in_training_have_to_be_confirmed(folder):
    policy = load_policy(folder, "cpu")
    wider = contract_with(joints__2__velocity=6.0)
    findings = policy_findings(policy, wider)
    assert verdicts(findings, "checkpoint")["wider limits"] == WARN
    with pytest.raises(ModelError, match=r"elbow_pitch.*6 in this contract is more than 4 in the checkpoint.*confirm"):
        Loaded(policy, None).served(wider)
    assert Loaded(policy, None).served(wider, confirm_wider_limits=True)[0] is not None
    assert Loaded(policy, None).served(contract_with(joints__2__velocity=2.0))[0] is not None


def test_actions_beyond_the_limits_are_counted_and_many_are_a_no_go():
    calm = HOME + 0.1 * np.sin(np.arange(100)[:, None] / 10 + np.arange(7))
    assert set(verdicts(action_findings("store", [calm], ARM), "store").values()) == {GO}
    few = calm.copy()
    few[3, 0] = 2.3
    assert verdicts(action_findings("store", [few], ARM), "store")["action range"] == WARN
    many = calm + np.array([0, 0, 0, 0, 0.5, 0, 0])
    found = action_findings("store", [many], ARM)
    assert verdicts(found, "store")["action range"] == NO_GO
    assert "wrist_pitch" in detail(found, "store", "action range")
    closing = calm - np.array([0, 0, 0, 0, 0, 0, 2.0])  # the gripper saturates: "close" may mean "as far as it goes"
    assert verdicts(action_findings("store", [closing], ARM), "store")["action range"] == GO
    wild = calm.copy()
    wild[50:, 1] += 1.45
    found = action_findings("store", [wild], ARM)
    assert verdicts(found, "store")["action jumps"] == NO_GO
    assert "shoulder_pitch" in detail(found, "store", "action jumps")
    fast = HOME + np.linspace(0, 1, 9)[:, None] * [2, 0, 0, 0, 0, 0, 0]
    found = action_findings("store", [fast], ARM)
    assert verdicts(found, "store")["velocity asked"] == WARN
    assert "base_yaw asks most: 1.25" in detail(found, "store", "velocity asked")


def test_a_policy_that_is_too_slow_for_its_chunks_or_deadlines_is_a_no_go(folder):
    served = ServedLearnedPolicy(load_policy(folder, "cpu"), ARM)

    def rates(latency: float) -> dict[str, str]:
        return verdicts(rate_findings(DryRun(latency=[latency] * 20, tick=[1e-5]), served, None, ARM), "rates")

    assert set(rates(0.01).values()) == {GO}
    assert rates(0.3)["chunk horizon"] == WARN
    assert rates(0.6)["chunk horizon"] == NO_GO
    assert rates(0.9)["policy latency"] == NO_GO
    assert rates(0.9)["chunk interval"] == NO_GO


class Bad:
    """A policy whose third chunk is broken."""

    def __init__(self, served) -> None:
        self.served, self.info, self.calls = served, served.info, 0

    def start(self, task: str):
        self.served.start(task)
        return self

    def act(self, observation: Observation):
        self.calls += 1
        actions = self.served.act(observation).copy()
        actions[5, 1] = np.nan if self.calls == 3 else actions[5, 1]
        return actions


def test_the_dry_run_finds_a_policy_that_gives_broken_chunks(folder, store):
    run = DryRun()
    dry_run(run, store[0], Bad(ServedLearnedPolicy(load_policy(folder, "cpu"), ARM)), None, ARM, "latest", 10)
    assert run.accepted < run.chunks
    assert "shoulder_pitch: action 5 is nan" in run.refusals
    assert any("shoulder_pitch" in message for message in run.stops)


def test_a_store_without_what_the_policy_reads_is_a_no_go(folder, store, tmp_path):
    features = {key: value for key, value in FEATURES.items() if "environment" not in key}
    bare = DemoStore.create(tmp_path / "bare.zarr", features, 20, contract_hash=ARM.hash)
    with bare.writer(task="swing", success=None) as episode:
        for i in range(3):
            frame = store[0]
            episode.add({key: frame[key][i] for key in features}, timestamp=i / 20)
    checked = deploy_check(ARM, load(str(folder), None, "cpu"), DemoStore.open(bare.path), 1, 1.0, "latest")
    assert not checked.go
    assert "observation.environment_state" in detail(checked.findings, "dry run", "inputs")


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_a_checkpoint_that_lerobot_wrote_is_served_with_its_pictures_and_history(kind, tmp_path):
    folder = lerobot_checkpoint(kind, tmp_path / "checkpoint")
    policy = load_policy(folder, "cpu")
    served, _ = Loaded(policy, None).served(ARM)
    assert served is not None
    steps = 1 if kind == "act" else 2
    assert (served.info.kind, served.info.history, served.info.contract_hash) == (kind, steps, "")
    assert served.info.needs["observation.images.front"] == (128, 128, 3)
    random = np.random.default_rng(0)
    pictures = {name: random.integers(0, 255, (128, 128, 3), np.uint8) for name in ("front", "wrist")}
    with (
        PolicyServer(ARM, f"unix:{tmp_path}/s.sock", served) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        until(lambda: client.status().state is ClientState.CONNECTED)
        for i, want in enumerate(((), ("chunk",))):
            state = HOME + 0.01 * i
            assert client.send_observation(ARM.joint_names, state, pictures, observed_at=i / 20, epoch=1, want=want)
            # One that is not under way yet would be replaced by the next.
            until(lambda: steps == 1 or all(session._past for session in server._sessions))
        chunk = until(lambda: client.poll().chunk)
    assert chunk.actions.shape == (policy.chunk_size, 7)
    images = {f"observation.images.{name}": picture for name, picture in pictures.items()}
    policy.reset()
    states = [(HOME + 0.01 * i).astype(np.float32) for i in range(2)]
    if kind == "act":
        expected = policy.act({**images, "observation.state": states[1]})
    else:
        twice = {key: np.stack([picture, picture])[None] for key, picture in images.items()}
        expected = policy.act({**twice, "observation.state": np.stack(states)[None]})[0]
    assert np.allclose(chunk.actions, expected, atol=1e-5)


def test_the_dry_run_gives_a_policy_of_two_observations_the_frame_before(store, tmp_path):
    policy = load_policy(lerobot_checkpoint("diffusion", tmp_path / "checkpoint"), "cpu")
    served = ServedLearnedPolicy(policy, ARM)
    pairs = []

    class Spy:
        info = served.info

        def start(self, task: str):
            return self

        def act(self, observation: Observation):
            pairs.append((observation.past[0]["observation.images.front"][0, 0, 0],
                          observation.values["observation.images.front"][0, 0, 0]))  # fmt: skip
            return np.repeat(observation.values["observation.state"][None], 16, axis=0)

    run = DryRun()
    dry_run(run, store[0], Spy(), None, ARM, "latest", 2.0)
    assert run.accepted == run.chunks >= 3
    assert not run.faults
    # The recording's pictures count its frames: the first frame is its own past.
    assert pairs[0] == (0, 0)
    assert all(now == before + 1 for before, now in pairs[1:])


def lerobot_checkpoint(kind: str, folder: Path) -> Path:
    """An untrained policy, saved by LeRobot's own calls."""
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature

    features = {
        "input_features": {
            "observation.state": PolicyFeature(FeatureType.STATE, (7,)),
            **{
                f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 64, 64))
                for name in ("front", "wrist")
            },
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
        "device": "cpu",
    }
    torch.manual_seed(0)
    if kind == "act":
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy
        from lerobot.policies.act.processor_act import make_act_pre_post_processors as make

        small = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1, "n_vae_encoder_layers": 1}
        config = ACTConfig(**features, **small, chunk_size=12, n_action_steps=6, pretrained_backbone_weights=None)
        policy = ACTPolicy(config)
    else:
        from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
        from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors as make

        config = DiffusionConfig(
            **features, horizon=16, n_action_steps=8, down_dims=(32, 64), num_inference_steps=2, crop_shape=None,
            pretrained_backbone_weights=None,
        )  # fmt: skip
        policy = DiffusionPolicy(config)
    statistics = {
        key: {
            name: torch.full((7,), value) for name, value in (("mean", 0.0), ("std", 1.0), ("min", -2.0), ("max", 2.0))
        }
        for key in ("observation.state", "action")
    }
    statistics |= {
        key: {name: torch.full((3, 1, 1), value) for name, value in (("mean", 0.5), ("std", 0.3))}
        for key in features["input_features"]
        if "images" in key
    }
    policy.save_pretrained(folder)
    for pipeline in make(config, statistics):
        pipeline.save_pretrained(folder)
    return folder


def test_neither_policy_nor_reward_model_is_refused():
    with pytest.raises(ConfigError, match="policy=DIR"):
        load(None, None)


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_the_command_serves_ends_cleanly_on_sigterm_and_can_be_killed_and_started_again(folder, tmp_path, kind):
    ours, credentials = tls_credentials(tmp_path / "certificates") if kind == "tls" else (Credentials(), Credentials())
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tls://127.0.0.1:{free.getsockname()[1]}" if kind == "tls" else f"unix:{tmp_path}/policy.sock"
    command = [sys.executable, "-m", "robo_core.cli.main", "serve-policy", f"policy={folder}", "contract=tidy_drawer"]
    command += [f"listen={address}", "device=cpu", "threads=1", f"out={tmp_path}/out"]
    command += [f"certificates={ours.certificates}"] if kind == "tls" else []

    def start(stack: ExitStack) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        server = stack.enter_context(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes))
        stack.callback(server.kill)
        return server

    def ask(client: PolicyClient) -> np.ndarray:
        """Send again and again, as a bridge does: a connection that breaks takes what is under way with it."""
        arrays = {"observation.environment_state": np.zeros(3)}

        def answered():
            client.send_observation(ARM.joint_names, HOME, arrays=arrays, observed_at=1.0, want=("chunk",))
            time.sleep(0.1)
            return client.poll().chunk

        return until(answered, 120).actions

    with ExitStack() as stack, PolicyClient(ARM, address, timeouts=QUICK, credentials=credentials) as client:
        first = start(stack)
        until(lambda: client.status().state is ClientState.CONNECTED, 120)
        before, epoch = ask(client), until(lambda: client.status().server_epoch)
        first.kill()
        first.communicate(timeout=20)
        until(lambda: client.status().state is ClientState.CONNECTING)
        client.poll()
        second = start(stack)
        until(lambda: client.status().state is ClientState.CONNECTED, 120)
        assert client.poll().restarted
        assert until(lambda: client.status().server_epoch) != epoch
        assert np.allclose(ask(client), before, atol=1e-6)
        second.send_signal(signal.SIGTERM)
        output, errors = second.communicate(timeout=20)
    assert second.returncode == 0, errors
    assert "Traceback" not in errors
    assert "stopped" in output + errors
    assert not (tmp_path / "policy.sock").exists()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["chunk_answers"] >= 1
