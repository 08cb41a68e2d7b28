"""A policy that was learnt by reinforcement learning, in a folder, as evaluations and robots run it.

The folder holds ``rl_policy.json`` (what it is, and a checksum of each file), ``rl_policy.safetensors`` (actor,
target critics, clone), and, where the critics look at a learned potential, that reward model in ``reward_model/``. The
cloned policy that proposes actions, where it came from a folder, is in ``proposals/``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_policies.rl.actors import ActorShape, PlainActor
from robo_policies.rl.blending import BlendedSac
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE, ActionMap, Proposer
from robo_policies.rl.proposals import ClonedDecisions, PolicyProposals
from robo_policies.rl.replay import Floats
from robo_policies.rl.sac import Sac
from robo_policies.rl.settings import LEARNERS, SacSettings
from robo_rm.shaping.potential import NoPotential, Potential, VideoPotential

CARD, WEIGHTS, REWARD_MODEL, PROPOSALS = "rl_policy.json", "rl_policy.safetensors", "reward_model", "proposals"
FORMAT = 1
_ARRAYS = ("low", "high", "reach")
MOST_EPISODES = 64
"""Episodes that can be followed at once."""


def save_rl_policy(
    folder: Path,
    learnt: Sac | PlainActor,
    clone: ClonedDecisions | None,
    actions: ActionMap,
    dims: Mapping[str, int],
    reward_model: Path | None,
    proposals: Path | None,
    facts: Mapping[str, Any],
) -> None:
    """Write a policy folder, the card last.

    Args:
        folder: to write to.
        learnt: what acts.
        clone: the clone that proposes, if it does.
        actions: how actions are carried out.
        dims: key -> D of the observation, in the order the learner sees them, and of ``action``.
        reward_model: folder of the reward model whose potential the critics look at, or None.
        proposals: folder of the cloned policy that proposes, or None.
        facts: further entries of the card, such as the world and the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = {**learnt.state(), **(clone.state() if clone is not None else {})}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(held))
    for source, name in ((reward_model, REWARD_MODEL), (proposals, PROPOSALS)):
        shutil.rmtree(folder / name, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("training", "checkpoint*", "*.png"))
    # JSON knows no infinity: the reach of an absolute command is null.
    numbers = {
        "repeat": actions.repeat,
        **{name: [float(v) if np.isfinite(v) else None for v in getattr(actions, name)] for name in _ARRAYS},
    }
    card = {
        "format": FORMAT,
        "dims": dict(dims),
        "actions": {"kind": actions.kind, **numbers},
        "learner": asdict(learnt.settings),
        "actor": learnt.described() if isinstance(learnt, PlainActor) else None,
        "proposes": "clone" if clone is not None else ("folder" if proposals is not None else ""),
        "blend": learnt.blend if isinstance(learnt, BlendedSac) else "",
        "potential": reward_model is not None,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        **facts,
    }
    write_atomically(folder / CARD, json.dumps(card, indent=1, default=str) + "\n")


class RlPolicy:
    """Decides every few steps, as it learnt to.

    Attributes:
        folder: where it was loaded from.
        card: what ``rl_policy.json`` says.
        dims: key -> D for each observation key and ``action``.
        cameras: key -> (height, width) of the images that its potential looks at; empty without one.
        chunk_size: steps in a decision; all of them are carried out.
        execution_horizon: the same.
        follows_episodes: that `act` must be told which episodes its rows belong to.
    """

    kind = "rl"
    observation_steps = 1

    def __init__(
        self,
        folder: Path,
        card: Mapping[str, Any],
        learnt: Sac | PlainActor,
        actions: ActionMap,
        propose: Proposer | None,
        reward_model: Any,
    ) -> None:
        self.folder, self.card = folder, dict(card)
        self.dims = {key: int(size) for key, size in card["dims"].items()}
        self.chunk_size = self.execution_horizon = actions.repeat
        self.cameras: dict[str, tuple[int, int]] = {}
        if reward_model is not None:
            self.cameras = _camera_sizes(reward_model)
        self.follows_episodes = reward_model is not None
        self._learnt, self._actions, self._propose, self._model = learnt, actions, propose, reward_model
        self._potential = self._fresh_potential()
        self._known: set[int] = set()

    @property
    def device(self) -> str:
        """Where the networks are."""
        return self._learnt.device

    def reset(self) -> None:
        """Start new episodes."""
        self._known = set()

    def act(self, observation: Mapping[str, Any], which: npt.ArrayLike | None = None) -> Floats:
        """Actions for the steps until the next decision, (H, A), or (B, H, A) for observations (B, ...).

        Args:
            observation: the state, the environment's state where it was learnt with one, and the images of the
                potential, uint8 RGB.
            which: (B,) episodes that the rows belong to, since `reset`; rows count from 0 if not given.

        Raises:
            ModelError: something is missing or of another size than it was learnt with.
        """
        missing = [key for key in (*self.dims, *self.cameras) if key != "action" and key not in observation]
        if missing:
            raise ModelError(f"the policy in {self.folder} needs {missing[0]!r}; got {', '.join(sorted(observation))}")
        keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in self.dims]
        single = np.ndim(observation[STATE]) == 1
        seen = {
            key: np.asarray(observation[key])[None] if single else np.asarray(observation[key])
            for key in (*keys, *self.cameras)
        }
        for key in keys:
            if seen[key].shape[1:] != (self.dims[key],):
                raise ModelError(
                    f"the policy in {self.folder} was learnt with {self.dims[key]} values of {key!r}; the observation "
                    f"has {seen[key].shape[1:]}"
                )
        rows = np.arange(len(seen[STATE])) if which is None else np.asarray(which, dtype=np.int64)
        states = {key: seen[key].astype(np.float32) for key in keys}
        potential = self._score(seen, rows)
        vector = np.concatenate([*states.values(), potential[:, None].astype(np.float32)], axis=1)
        proposed = None if self._propose is None else np.clip(self._propose(states), -1, 1).astype(np.float32)
        chosen, _ = self._learnt.act(vector, explore=False, proposed=proposed)
        chunks = np.stack([self._actions.commands(s, a) for s, a in zip(states[STATE], chosen, strict=True)])
        return np.asarray(chunks[0] if single else chunks, dtype=np.float32)

    def _score(self, seen: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        if len(rows) and int(rows.max()) >= MOST_EPISODES:
            raise ModelError(f"at most {MOST_EPISODES} episodes can be followed at once; asked for row {rows.max()}")
        fresh = np.array([row for row in rows.tolist() if row not in self._known], dtype=np.int64)
        if len(fresh):
            self._potential.begin(fresh)
            self._known |= set(fresh.tolist())
        return self._potential.score(seen, rows)

    def _fresh_potential(self) -> Potential:
        if self._model is None:
            return NoPotential()
        return VideoPotential(self._model, MOST_EPISODES, self._actions.repeat)


def load_rl_policy(folder: Path, device: str = "cpu") -> RlPolicy:
    """Read what `save_rl_policy` wrote.

    Raises:
        ModelError: a file is missing, damaged or of a newer format.
    """
    from robo_policies.cloning.learned import load_policy
    from robo_rm import load_reward_model

    try:
        card = json.loads((folder / CARD).read_text())
        if card["format"] != FORMAT:
            raise ModelError(f"{folder / CARD} is of format {card['format']}, this version reads {FORMAT}; upgrade")
        described = card["actions"]
        arrays = {
            name: np.array([np.inf if v is None else v for v in described[name]], dtype=np.float32) for name in _ARRAYS
        }
        actions = ActionMap(str(described["kind"]), int(described["repeat"]), **arrays)
        raw = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(raw).hexdigest() != card["weights_sha256"]:
            raise ModelError(f"{folder / WEIGHTS} does not match its checksum; the file was changed or damaged")
        held = safetensors.torch.load(raw)
        size = sum(int(size) for key, size in card["dims"].items() if key != "action")
        proposes = card["proposes"]
        learnt = _empty(card, size, device)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder} does not hold a readable policy: {str(error).splitlines()[0]}") from error
    learnt.load_state(held)
    propose: Proposer | None = None
    if proposes == "clone":
        propose = clone = ClonedDecisions(size, int(card["dims"]["action"]), learnt.settings.width, 0)
        clone.load_state(held)
    elif proposes == "folder":
        propose = PolicyProposals(load_policy(folder / PROPOSALS, device), actions)
    model: Any = load_reward_model(folder / REWARD_MODEL, device) if card["potential"] else None
    rule = card.get("ensemble")
    if model is not None and rule:
        from robo_rm.reward_models.baselines.ensemble import with_rule

        model = with_rule(model, str(rule["rule"]), float(rule["pessimism"]))
    return RlPolicy(folder, card, learnt, actions, propose, model)


def sees_potential(learnt: Sac | PlainActor) -> bool:
    """Whether the potential must be known to act."""
    return not isinstance(learnt, PlainActor) or learnt.shape.sees_potential


def _empty(card: Mapping[str, Any], size: int, device: str) -> Sac | PlainActor:
    """What a card describes, before it takes its weights."""
    described = dict(card["learner"])
    learner = LEARNERS[str(described.get("name", "sac"))](**described)
    if isinstance(learner, SacSettings):
        # Acting needs no losses, and where a policy runs there may be no compiler.
        learner = replace(learner, compile=False)
        made = (size + 1, int(card["dims"]["action"]), learner, 0)
        proposes, blend = bool(card["proposes"]), str(card.get("blend", ""))
        return BlendedSac(*made, blend, proposes, device) if blend else Sac(*made, proposes, device)
    shape = {**card["actor"], "widths": tuple(int(width) for width in card["actor"]["widths"])}
    return PlainActor(ActorShape(**shape), learner, device)


def _camera_sizes(model: Any) -> dict[str, tuple[int, int]]:
    """(height, width) of the images that a reward model looks at, by key; an ensemble's are its members'."""
    while hasattr(model, "members"):
        model = model.members[0]
    told = model.looks.cameras if hasattr(model, "looks") else model.description.cameras
    return {key: (int(size[0]), int(size[1])) for key, size in told.items()}
