"""What differs between LeRobot's versions, and that nothing which is used of it has gone."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robo_core.errors import ModelError
from robo_policies.cloning import act, diffusion, lerobot_versions
from robo_policies.cloning.act import ActLearner, act_config
from robo_policies.cloning.diffusion import DiffusionLearner, diffusion_config
from robo_policies.cloning.learned import load_policy
from robo_policies.cloning.lerobot_versions import (
    INTERNALS,
    LATER_SETTINGS,
    PLACES,
    check_internals,
    from_lerobot,
    lerobot_version,
    read_configuration,
)
from robo_policies.cloning.settings import ActSettings, DiffusionSettings

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINTS = Path(__file__).with_name("checkpoints")
DIMS = {"observation.state": 2, "action": 2}
CAMERAS = {"observation.images.front": (32, 32), "observation.images.wrist": (32, 32)}

# Settings that make neither the network nor its actions: where it is, how LeRobot's own loop would train it.
NOT_THE_NETWORK = re.compile(
    r"device|use_amp|use_peft|push_to_hub|repo_id|private|tags|license|pretrained_path|compile_\w+|optimizer_\w+|"
    r"scheduler_\w+"
)


@pytest.fixture(scope="module")
def policies():
    """A small policy of each kind that robo-rm runs, which looks at pictures."""
    small = {"dim_model": 16, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1}
    made = {
        "act": ActLearner(ActSettings(chunk_size=4, execution_horizon=2, **small), DIMS, CAMERAS),
        "diffusion": DiffusionLearner(
            DiffusionSettings(chunk_size=4, execution_horizon=2, down_dims=[16], keypoints=4), DIMS, CAMERAS
        ),
    }
    return {kind: learner.policy for kind, learner in made.items()}


@pytest.mark.parametrize("kind", sorted(INTERNALS))
def test_the_names_inside_lerobots_policies_that_are_used_here_exist(policies, kind):
    check_internals(policies[kind], kind)
    if kind == "act":
        assert policies[kind].model.backbone is not None


def test_a_name_that_is_gone_is_an_error_that_says_which_and_in_which_version(policies):
    without = SimpleNamespace(diffusion=SimpleNamespace(_prepare_global_conditioning=len, conditional_sample=len))
    with pytest.raises(
        ModelError, match=rf"LeRobot {re.escape(lerobot_version())} has no diffusion.noise_scheduler in"
    ):
        check_internals(without, "diffusion")


@pytest.mark.parametrize("name", sorted(PLACES))
def test_what_moved_is_found_wherever_this_version_keeps_it(name):
    assert from_lerobot(name) is not None


def test_a_name_that_no_version_has_is_told_with_the_places_that_were_tried(monkeypatch):
    monkeypatch.setattr(lerobot_versions, "PLACES", {"Nothing": ("lerobot.no_such_module", "lerobot.configs.types")})
    with pytest.raises(ImportError, match=r"has no Nothing in lerobot.no_such_module or lerobot.configs.types"):
        from_lerobot("Nothing")


@pytest.mark.parametrize(
    ("make", "settings", "module"),
    [(act_config, ActSettings(), act), (diffusion_config, DiffusionSettings(chunk_size=16), diffusion)],
)
def test_every_setting_that_makes_the_network_is_set(make, settings, module):
    """Left to LeRobot, a default that changes between its versions builds another network without a word."""
    config = make(settings, DIMS, CAMERAS, "cpu")
    source = inspect.getsource(make) + inspect.getsource(module.common_configuration)
    given = {node.arg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword)}
    given |= {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    fields = {field.name for field in dataclasses.fields(config)}
    left = {name for name in fields - given - LATER_SETTINGS.keys() if not NOT_THE_NETWORK.fullmatch(name)}
    assert left == set(), f"LeRobot {lerobot_version()} has settings that nobody decided on"
    for name in fields & LATER_SETTINGS.keys():
        assert getattr(config, name) == LATER_SETTINGS[name]


def test_no_other_module_asks_which_version_is_installed():
    """Two ways to find something in LeRobot, or its version read, belong in lerobot_versions.py."""
    second_way = re.compile(r"try:\n\s+(from|import) lerobot[^\n]*\n\s*except ImportError[^\n]*\n\s+(try|from)")
    found = []
    for folder in ("core", "datasets", "robo_rm", "policies", "hw"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if path.name != "lerobot_versions.py" and (second_way.search(text) or "lerobot.__version__" in text):
                found.append(str(path.relative_to(ROOT)))
    assert found == []


def with_settings(folder: Path, **values) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_settings_that_this_version_does_not_know_are_left_out_where_they_change_nothing(policies, kind, tmp_path):
    policies[kind].save_pretrained(tmp_path)
    before = read_configuration(tmp_path, kind)
    assert (
        repr(read_configuration(with_settings(tmp_path, **LATER_SETTINGS), kind))
        == repr(before)
        == repr(policies[kind].config)
    )


def test_a_setting_of_another_version_that_is_in_use_is_refused_with_the_versions(policies, tmp_path):
    policies["act"].save_pretrained(tmp_path)
    with_settings(tmp_path, attention_kind="sparse")
    here = re.escape(lerobot_version())
    with pytest.raises(ModelError, match=rf"another version of LeRobot: its setting attention_kind='sparse' .* {here}"):
        load_policy(tmp_path)
    with pytest.raises(ModelError, match=rf"written by LeRobot 0\.9\.0: its setting attention_kind='sparse' .* {here}"):
        read_configuration(tmp_path, "act", "0.9.0")


@pytest.mark.parametrize("kind", ["act", "diffusion"])
@pytest.mark.parametrize("written", sorted(CHECKPOINTS.glob("lerobot-*")), ids=lambda folder: folder.name)
def test_a_checkpoint_of_each_version_gives_the_same_actions_on_this_one(written, kind):
    """`checkpoints/make.py` wrote them, once on each version."""
    told = json.loads((written / "actions.json").read_text())
    seen = {key: np.array(value, np.float32) for key, value in told["observation"].items()}
    np.testing.assert_allclose(load_policy(written / kind, "cpu").act(seen), told["actions"][kind], atol=1e-5)
