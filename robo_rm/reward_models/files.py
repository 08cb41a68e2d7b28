"""Names of the files of a saved reward model; see `robo_rm.reward_models.saving`."""

from __future__ import annotations

CONFIG, WEIGHTS, PROVENANCE, CARD = "config.yaml", "model.safetensors", "provenance.json", "card.md"
CALIBRATION = "calibration.json"
