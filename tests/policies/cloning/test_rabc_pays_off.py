"""The point of it all, small: weights from progress make a better policy out of uneven demonstrations."""

from __future__ import annotations

import json

import pytest

STEPS, EPISODES = 1500, 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_weights_by_true_progress_beat_plain_cloning_on_mixed_demonstrations(run_command, tmp_path):
    """With weights from the simulator's progress, so that the policy side is judged apart from the reward model."""
    store = f"store={tmp_path / 'demos.zarr'}"
    assert run_command("record", "env=tidy_drawer", store, "episodes=80", "quality=mixed", "cameras=[]")[0] == 0
    assert run_command("score", store, "progress_key=simulator.progress")[0] == 0
    rates = {}
    for weights in ("none", "rabc"):
        policy, out = tmp_path / weights, tmp_path / f"eval_{weights}"
        words = ("train-policy", store, "policy=act", f"weights={weights}", f"steps={STEPS}", f"out={policy}")
        assert run_command(*words)[0] == 0
        evaluation = ("eval-policy", f"policy={policy}", "env=tidy_drawer", f"episodes={EPISODES}", f"out={out}")
        assert run_command(*evaluation)[0] == 0
        rates[weights] = json.loads((out / "metrics.json").read_text())["success_rate"]
    assert rates["rabc"] >= 0.85, rates
    assert rates["rabc"] >= rates["none"] + 0.15, rates
