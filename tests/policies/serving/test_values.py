"""Names and units of recordings against a contract: every form that LeRobot has, and nothing passes reordered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from robo_core.cli.main import main
from robo_core.errors import ModelError
from robo_datasets import DemoStore
from robo_hw import RobotContract
from robo_hw.transport import Observation
from robo_policies import load_policy
from robo_policies.feature_names import NamesError, flat_names
from robo_policies.serving.check_store import store_findings
from robo_policies.serving.deploy_check import deploy_check
from robo_policies.serving.fit import GO, NO_GO, WARN, policy_findings, reward_findings
from robo_policies.serving.loading import Loaded, load
from robo_policies.serving.served import ServedRewardModel
from robo_policies.serving.values import match_values

MOTORS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
NAMES = [f"{name}.pos" for name in MOTORS]
STATE, ACTION = "observation.state", "action"
MIDDLE = np.array([5.0, -60.0, 70.0, 30.0, -20.0, 40.0])
"""A pose of an SO-101 as LeRobot tells it, in degrees, the gripper 0..100."""


def small_so101(**lerobot) -> RobotContract:
    """The packaged contract with one small camera; ``lerobot``: changes of its section, False for none."""
    data = RobotContract.load("so101").to_dict()
    data["cameras"] = [data["cameras"][0] | {"width": 64, "height": 48}]
    data["deadlines"] |= {"chunk": 5.0, "actions": 5.0}  # a busy machine is not what is tested here
    if lerobot.get("section", True) is None:
        del data["lerobot"]
    else:
        data["lerobot"] |= lerobot
    return RobotContract.from_dict(data)


def swing(t: np.ndarray) -> np.ndarray:
    return MIDDLE + 8 * np.sin(t[:, None] + np.arange(6))


def recorded(path: Path, names, scale: float = 1.0, rows: int = 45) -> DemoStore:
    """A store as an import of LeRobot's recording of an SO-101 leaves it."""
    made = DemoStore.create(
        path,
        {
            "observation.images.front": {"shape": (48, 64, 3), "dtype": "uint8"},
            STATE: {"shape": (6,), "dtype": "float32", "names": names},
            ACTION: {"shape": (6,), "dtype": "float32", "names": names},
        },
        30,
        robot="so101_follower",
    )
    values = (swing(np.arange(rows + 1) / 30) * scale).astype(np.float32)
    with made.writer(task="swing", success=True) as episode:
        for i in range(rows):
            picture = np.full((48, 64, 3), i, np.uint8)
            episode.add(
                {"observation.images.front": picture, STATE: values[i], ACTION: values[i + 1]}, timestamp=i / 30
            )
    return DemoStore.open(path)


def checkpoint(folder: Path, low: np.ndarray, high: np.ndarray) -> Path:
    """An untrained ACT, saved by LeRobot's own calls, whose statistics run from ``low`` to ``high``."""
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors

    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (6,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu", dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1, n_vae_encoder_layers=1,
        chunk_size=24, n_action_steps=6, pretrained_backbone_weights=None,
    )  # fmt: skip
    statistics = {"observation.images.front": {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.3)}}
    for key in (STATE, ACTION):
        found = {"mean": (low + high) / 2, "std": (high - low) / 600, "min": low, "max": high}
        statistics[key] = {name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()}
    ACTPolicy(config).save_pretrained(folder)
    for pipeline in make_act_pre_post_processors(config, statistics):
        pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def degrees(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("checkpoints") / "degrees", MIDDLE - 8, MIDDLE + 8)


def found(findings, check: str):
    return next(finding for finding in findings if finding.check == check)


@pytest.mark.parametrize(
    ("names", "flat"),
    [
        (["a", "b"], ("a", "b")),
        (("a", "b"), ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ([["a"], ["b"]], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"axes": ["a", "b"]}, ("a", "b")),
        ({"motors": [["a", "b"]]}, ("a", "b")),
        ({"left": ["a"], "right": ["b"]}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({"motors": {"b": 1, "a": 0}}, ("a", "b")),
        (None, None), ([], None), ({}, None), ({"axes": None}, None), ("a", ("a",)),
    ],
)  # fmt: skip
def test_names_are_read_in_every_form(names, flat):
    assert flat_names(names) == flat
    assert flat_names(json.loads(json.dumps(names))) == flat


@pytest.mark.parametrize("names", [[1, 2], ["a", None], {"a": 1, "b": 1}, {"a": 1, "b": 2}, 3, {"a": 0.5}, [["a"], 3]])
def test_names_of_another_form_are_said(names):
    with pytest.raises(NamesError):
        flat_names(names)


def forms(names: list[str]) -> list:
    by_place = {name: place for place, name in enumerate(names)}
    return [names, [names], {"motors": names}, {"axes": [names]}, by_place, {"arm": names[:5], "hand": names[5:]}]


@pytest.mark.parametrize("form", range(6))
@pytest.mark.parametrize(("names", "converted"), [(MOTORS, False), (NAMES, True)])
def test_reordered_names_never_pass_and_ordered_ones_always_do(form, names, converted):
    contract = small_so101()
    right = match_values(forms(names)[form], contract, "action")
    assert not right.problem
    assert (right.units is not None) is converted
    for wrong in (names[::-1], [names[1], names[0], *names[2:]], [*names[:4], names[5], names[4]]):
        problem = match_values(forms(wrong)[form], contract, "action").problem
        assert "the order differs" in problem
        place = next(i for i in range(6) if wrong[i] != names[i])
        assert f"action {place} is {wrong[place]!r}" in problem


@pytest.mark.parametrize(
    ("names", "section", "match"),
    [
        (NAMES, None, "LeRobot's name, in degrees or in fractions of a range; the contract has no section lerobot"),
        (NAMES[:5], True, "5 names of actions, 6 joints"),
        ([*NAMES[:5], "thumb.pos"], True, "action 5 is 'thumb.pos', joint 5 of the contract's section lerobot is"),
        ([*MOTORS[:5], "thumb"], True, "action 5 is 'thumb', joint 5 of the contract is 'gripper'"),
        ([*MOTORS[:5], "gripper.pos"], True, "action 5 is 'gripper.pos'"),
        ([3, 4], True, "its names hold 3"),
    ],
)
def test_other_names_are_refused_by_name(names, section, match):
    contract = small_so101(section=None) if section is None else small_so101()
    assert match in match_values(names, contract, "action").problem


def test_a_lerobot_recording_and_checkpoint_of_an_so101_are_a_go(degrees, tmp_path, capsys):
    store = recorded(tmp_path / "demos.zarr", {"motors": NAMES}, rows=100)
    contract = tmp_path / "arm.yaml"
    contract.write_text(yaml.safe_dump(small_so101().to_dict()))
    code = main(["deploy-check", f"policy={degrees}", f"store={store.path}", f"contract={contract}", "device=cpu",
                 "seconds=3", f"out={tmp_path}/out"])  # fmt: skip
    output = capsys.readouterr().out
    assert code == 0, output
    findings = json.loads((tmp_path / "out/findings.json").read_text())
    units = next(one for one in findings if (one["part"], one["check"]) == ("checkpoint", "units"))
    assert units["verdict"] == WARN
    assert "degrees, gripper 0..100" in units["detail"]
    state = next(one for one in findings if (one["part"], one["check"]) == ("store", STATE))
    assert "in LeRobot's units: degrees, gripper 0..100" in state["detail"]


def test_a_policy_trained_here_on_that_recording_keeps_its_names_and_is_a_go(tmp_path):
    from robo_policies import train_policy
    from robo_policies.cloning.settings import ActSettings, CloningSettings
    from robo_rm.training.budget import Budget

    store = recorded(tmp_path / "demos.zarr", {"motors": NAMES})
    settings = ActSettings(
        chunk_size=16, execution_horizon=5, dim_model=16, n_heads=2, dim_feedforward=16, n_encoder_layers=1
    )
    train_policy(store, tmp_path / "policy", Budget(2), settings, training=CloningSettings(precision="fp32"))
    card = load_policy(tmp_path / "policy", "cpu").card
    assert card["actions"] == card["state"] == NAMES
    served, _ = Loaded(load_policy(tmp_path / "policy", "cpu"), None).served(small_so101())
    low, high = served.info.start_poses["shoulder_lift"]
    assert low == high == pytest.approx(np.deg2rad(swing(np.zeros(1))[0, 1]), abs=1e-5)  # where the recording begins
    assert served.info.start_poses["gripper"][0] == pytest.approx(
        -0.174 + swing(np.zeros(1))[0, 5] / 100 * 1.919, abs=1e-5
    )
    findings = policy_findings(load_policy(tmp_path / "policy", "cpu"), small_so101())
    assert found(findings, "units").verdict == GO
    other = policy_findings(load_policy(tmp_path / "policy", "cpu"), small_so101(section=None))
    assert found(other, "joints").verdict == NO_GO
    reversed_names = recorded(tmp_path / "reversed.zarr", {name: 5 - i for i, name in enumerate(NAMES)})
    train_policy(reversed_names, tmp_path / "other", Budget(2), settings, training=CloningSettings(precision="fp32"))
    findings = policy_findings(load_policy(tmp_path / "other", "cpu"), small_so101())
    assert "the order differs" in found(findings, "joints").detail


def test_the_served_policy_reads_and_answers_in_radians(degrees):
    contract = small_so101()
    policy = load_policy(degrees, "cpu")
    served, _ = Loaded(policy, None).served(contract)
    picture = np.zeros((48, 64, 3), np.uint8)
    state = np.array([*np.deg2rad(MIDDLE[:5]), -0.174 + 0.4 * 1.919], np.float32)
    chunk = served.start("").act(Observation(0, 0.0, {STATE: state, "observation.images.front": picture}))
    raw = policy.act({STATE: MIDDLE.astype(np.float32), "observation.images.front": picture})
    assert np.allclose(chunk[:, :5], np.deg2rad(raw[:, :5]), atol=1e-5)
    assert np.allclose(chunk[:, 5], -0.174 + raw[:, 5] / 100 * 1.919, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "scale", "lerobot", "match"),
    [
        (NAMES, np.pi / 180, {}, "moves farthest, by 0.*degrees; these look like radians"),
        (MOTORS, 1.0, {}, "elbow_flex runs from .*, its limits are .* rad; these look like degrees"),
        (NAMES, 2.0, {"units": "range_m100_100"}, r"elbow_flex.pos runs from .*, beyond -100..100, .* degrees\?"),
        (NAMES, np.array([1, 1, 1, 1, 1, 3.0]), {}, r"gripper.pos runs from .*, beyond 0..100"),
    ],
)
def test_numbers_that_contradict_the_unit_are_a_no_go_with_joint_and_unit(tmp_path, names, scale, lerobot, match):
    if lerobot:
        data = [{"joint": name, "units": "range_m100_100", "range": [-1.9, 1.9]} for name in MOTORS[:5]]
        lerobot = {"joints": [*data, {"joint": "gripper", "units": "range_0_100", "range": [-0.174, 1.745]}]}
    store = recorded(tmp_path / "demos.zarr", names, scale, rows=30)
    findings = store_findings(store, small_so101(**lerobot))
    assert found(findings, "units").verdict == NO_GO
    assert re.search(match, found(findings, "units").detail), found(findings, "units").detail


def test_a_checkpoint_whose_statistics_contradict_the_unit_is_refused(degrees, tmp_path):
    radians = checkpoint(tmp_path / "radians", np.deg2rad(MIDDLE - 8), np.deg2rad(MIDDLE + 8))
    with pytest.raises(ModelError, match=r"units: .*degrees; these look like radians"):
        Loaded(load_policy(radians, "cpu"), None).served(small_so101())
    with pytest.raises(ModelError, match=r"units: .*elbow_flex runs from .* rad; these look like degrees"):
        Loaded(load_policy(degrees, "cpu"), None).served(small_so101(section=None))


def test_deploy_check_does_not_run_what_is_in_another_unit(degrees, tmp_path):
    store = recorded(tmp_path / "demos.zarr", NAMES, np.pi / 180)
    checked = deploy_check(small_so101(), load(str(degrees), None, "cpu"), store, 1, 1.0, "latest")
    assert not checked.go
    assert "not tried" in found(checked.findings, "policy and core").detail


def test_a_reward_model_gets_the_state_in_the_unit_it_was_trained_in():
    seen = []

    class Stream:
        def step(self, frames, state=None):
            seen.append(state)
            return SimpleNamespace(progress=0.5, stage=0, uncertainty=0.1)

    model = SimpleNamespace(
        stages=["a"], cameras=["observation.images.front"], state_key=STATE, provenance={"fps": 30.0},
        description=SimpleNamespace(state_size=6), stream=lambda task=None: Stream(),
    )  # fmt: skip
    contract = small_so101()
    assert found(reward_findings(model, contract), "units").verdict == WARN
    state = np.array([*np.deg2rad(MIDDLE[:5]), -0.174 + 0.4 * 1.919], np.float32)
    values = {STATE: state, "observation.images.front": np.zeros((48, 64, 3), np.uint8)}
    ServedRewardModel(model, contract).start("").step(Observation(0, 0.0, values))
    assert np.allclose(seen[0], MIDDLE, atol=1e-3)
    model.provenance = {"fps": 30.0, "state_names": MOTORS}
    ServedRewardModel(model, contract).start("").step(Observation(0, 0.0, values))
    assert np.allclose(seen[1], state)
