"""Sparse and dense stages at the same time: two pairs of heads over the same tokens (SARM, arXiv 2509.25358, "dual").

The dense stages are the store's. The sparse ones are made of them (`reward.sparse`), and progress within a sparse stage
is even over its whole time, not over that of the dense stages in it. Every part of the product reads one progress: a
model shows that of its ``dense`` head, `StageRewardModel.with_head` gives the same weights with the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robo_core.errors import ConfigError, ModelError
from robo_rm.labels.grouping import GroupedStore, named_groups
from robo_rm.labels.progress import training_priors
from robo_rm.labels.tasks import task_priors
from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.capabilities import TwoHeaded, capability
from robo_rm.reward_models.protocol import RewardModel

if TYPE_CHECKING:
    from robo_datasets import Episode

DENSE, SPARSE = "dense", "sparse"


@dataclass(frozen=True)
class SparseStages:
    """The sparse stages of a model with both heads.

    Attributes:
        groups: name -> places of the dense stages in it; ``{"task": []}`` is the whole task.
        priors: (G,) share of each, of the training split.
        task_priors: (G,) by instruction, where tasks have stages of their own.
    """

    groups: dict[str, list[int]]
    priors: list[float]
    task_priors: dict[str, list[float]] = field(default_factory=dict)


def sparse_store(store: Any, groups: Sequence[Sequence[int]]) -> GroupedStore:
    """The store with the sparse stages that ``reward.sparse`` names.

    Raises:
        ConfigError: they are not the store's stages, each once and in their order, or the store's are put together
            already.
    """
    if isinstance(store, GroupedStore):
        raise ConfigError(
            "give stage_groups, to train on coarser stages alone, or reward.sparse, to train on both; not both settings"
        )
    return GroupedStore(store, named_groups(list(store.stages), groups), setting="reward.sparse")


def sparse_episodes(view: GroupedStore, episodes: Sequence[Any]) -> list[Episode]:
    """Episodes with the sparse labels."""
    return [view.grouped(episode) for episode in episodes]


def describe_sparse(
    view: GroupedStore, episodes: Sequence[Any], phrasings: Sequence[Sequence[str]] = ()
) -> SparseStages:
    """Sparse stages with the priors of a training split; ``phrasings`` are instructions that mean the same."""
    grouped, count = sparse_episodes(view, episodes), len(view.stages)
    return SparseStages(view.groups, training_priors(grouped, count).tolist(), task_priors(grouped, count, phrasings))


def shown_provenance(provenance: Mapping[str, Any], description: Any, head: str) -> dict[str, Any]:
    """Provenance of a model with both heads as far as judging and scoring read it: the stages of one of them.

    Figures of the training's end are those of the dense head and are not shown for the other.
    """
    mine = description if head == DENSE else description.sparse
    hidden = {"task_priors", "stage_groups", "head", *(("figures",) if head == SPARSE else ())}
    return {
        **{name: value for name, value in provenance.items() if name not in hidden},
        "priors": list(mine.priors),
        **({"task_priors": mine.task_priors} if mine.task_priors else {}),
        **({"stage_groups": mine.groups, "head": SPARSE} if head == SPARSE else {}),
    }


def model_with_head(model: RewardModel, head: str | None) -> RewardModel:
    """A loaded reward model as the commands read it, with the head asked for; None leaves it as it is.

    Raises:
        ConfigError: an unknown head. ModelError: the model has no second head, or is calibrated for the other.
    """
    if head is None:
        return model
    if head not in (DENSE, SPARSE):
        raise ConfigError(f"head={head}: dense or sparse")
    heads = capability(model, TwoHeaded)
    if isinstance(model, CalibratedModel):
        if (DENSE if heads is None else heads.head) == head:
            return model
        raise ModelError(
            f"the model is calibrated for its other head than head={head}; robo-rm calibrate model=... remove=true "
            "takes the calibration away"
        )
    if heads is None:
        raise ModelError(f"head={head}: only stage-aware models that were trained with reward.sparse have two heads")
    return heads.with_head(head)
