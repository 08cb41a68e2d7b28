"""Probe episodes of the simulator: pictures without the cube, truth that knows it, and their way into the figures."""

from __future__ import annotations

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
from robo_policies.envs.tidy_drawer.probes import PROBES, TidyDrawerProbeEnv, demonstrate

SMALL = ["episodes=1", "image_size=64", "cameras=[front]"]
FRONT = "observation.images.front"


def red(picture: np.ndarray) -> int:
    """Pixels of the cube's colour."""
    r, g, b = (picture[..., channel].astype(int) for channel in range(3))
    return int(((r > 90) & (g < 60) & (b < 70) & (r > g + 60)).sum())


@pytest.mark.parametrize("probe", PROBES)
def test_the_picture_differs_by_the_cube_alone(probe):
    pictures = []
    for env in (TidyDrawerEnv(), TidyDrawerProbeEnv(probe)):
        env.reset(seed=3)
        if isinstance(env, TidyDrawerProbeEnv):
            demonstrate(env, np.random.default_rng(0))
        pictures.append(env.render_cameras(("front",))[FRONT])
        env.close()
    there, probed = pictures
    if probe == "hovering_hand":
        assert np.array_equal(there, probed)
        return
    changed = (there != probed).any(axis=-1)
    assert red(there[changed]) > 15
    assert red(probed[changed]) == 0
    rows, columns = np.nonzero(changed)
    assert rows.max() - rows.min() < 20, "nothing but the cube's place"
    assert columns.max() - columns.min() < 20


def test_probes_are_recorded_with_the_stages_that_are_true_and_go_on(tmp_path, run_command):
    store = tmp_path / "probes.zarr"
    first = ["record-probes", f"store={store}", "probes=[empty_scene,hovering_hand]", *SMALL]
    code, output, errors = run_command(*first)
    assert code == 0, errors
    assert "empty_scene" in output
    made = DemoStore.open(store)
    assert [episode.attributes["quality"] for episode in made] == ["empty_scene", "hovering_hand"]
    assert all(episode.success is False for episode in made)
    mimed, hovered = made
    assert set(np.unique(mimed.stage)) == {0, 1}, "the drawer is really opened, and nothing can be grasped"
    assert (hovered.stage == 0).all()
    assert "observation.environment_state" not in made.features
    assert float(mimed["observation.state"][:][:, 6].min()) < 0.0, "the fingers close on nothing"
    assert run_command("record-probes", f"store={store}", "probes=[wrong_object,hovering_hand]", *SMALL)[0] == 0
    again = DemoStore.open(store)
    assert again.uuids[:2] == made.uuids
    assert len(again) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["env=metaworld/drawer-open-v3"], "tidy_drawer only"),
        (["probes=[ghost]"], "no such probe; choose among: empty_scene"),
        (["probes=[]"], "name each probe once"),
        (["episodes=0"], "at least 1"),
        (["cameras=[side]"], "no camera 'side'"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_is_written(tmp_path, run_command, settings, words):
    code, _, errors = run_command("record-probes", f"store={tmp_path / 'p.zarr'}", *settings)
    assert code == 2
    assert words in errors
    assert not (tmp_path / "p.zarr").exists()
