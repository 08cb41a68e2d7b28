"""Settings of reinforcement learning: plain dataclasses, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LearningSettings:
    """The loop around the learner."""

    discount: float = 0.998
    """g for one control step; a decision of k steps is discounted by g^k. A potential pulls only as far as g reaches:
    1 / (1 - g) control steps should be several times what an episode takes."""
    repeat: int = 5
    """Control steps in a decision."""
    worlds: int = 1
    """Worlds stepped together, their images scored in one batch."""
    processes: int = 0
    """Processes that the worlds run in while this one learns; 0 for this one alone."""
    updates_per_decision: int = 20
    """Updates of the critics for each decision taken."""
    warmup: int = 50
    """Decisions taken before the first update: the cloned policy's, or random ones without it."""
    demonstration_share: float = 0.5
    """Share of each batch that comes from demonstrations."""
    success_share: float = 0.25
    """Share of each batch that comes from the learner's own episodes that succeeded, once some have; it is taken from
    the demonstrations' share as far as that goes. Of `learner=sac`."""
    proposal_noise: float = 0.1
    """Standard deviation of the noise on the cloned policy's actions while exploring."""
    clone_share: float = 0.5
    """Share of the episodes that the cloned policy carries out alone, until four have succeeded."""
    clone_noise: float = 0.3
    """Standard deviation of the noise on its actions in every other of those."""
    patience: int = 8
    """Where there is a potential: decisions after which an episode that has come no further is cut off, as by a time
    limit; 0 to let it go on. Evaluations are never cut."""
    unseen: list[str] = field(default_factory=list)
    """Entries of the environment's state, by their names in the demo store, that learner and clone do not look at. What
    has no bearing on the task tells few episodes apart, and is taken for what made them succeed."""
    ahead: int = 1
    """Decisions whose rewards are summed before what follows is judged by the critics: n of n-step returns. Of
    `learner=sac`."""
    clone_steps: int = 2000
    """Most steps of cloning decisions, where no policy folder is given; few decisions take fewer. 0: no proposals."""
    clone_aligned: bool = True
    """Where there is a potential, clone only decisions after which it rose higher than after others, or that led to
    success."""
    clone_again: bool = True
    """Train the clone anew whenever the learner's own successes have grown by `clone_growth`, and an aligned one also
    whenever the episodes have, until some succeed; an aligned one from what came furthest, another from successes."""
    clone_growth: float = 1.4
    """Factor by which the successes, or the episodes, grow between two trainings of the clone."""
    capacity: int = 1_000_000
    """Decisions kept."""
    evaluate_every: int = 5000
    """Control steps between evaluations."""
    evaluation_episodes: int = 20
    """Episodes of an evaluation, always with the same starts."""


@dataclass(frozen=True)
class LearnerSettings:
    """What all learners have."""

    name: str = ""
    """Which learner."""
    width: int = 256
    """Width of the hidden layers."""
    batch: int = 256
    """Decisions in a batch."""
    learning_rate: float = 3e-4
    """Of all networks."""


@dataclass(frozen=True)
class SacSettings(LearnerSettings):
    """Soft actor-critic with demonstrations and a cloned policy's proposals: the default."""

    name: str = "sac"
    """Which learner."""
    width: int = 128
    """Width of the hidden layers."""
    critics: int = 5
    """Critics in the ensemble; the target is the least of two drawn at random."""
    batch: int = 128
    """Decisions in a batch, half of them from demonstrations where there are any."""
    learning_rate: float = 3e-4
    """Of actor, critics and temperature."""
    tau: float = 0.005
    """Share of the critics that flows into the target critics at each update."""
    temperature: float = 0.005
    """Entropy bonus at the start; then adapted. What shaping pays for a step is small: a larger bonus outweighs it, and
    the actor explores so widely for its first thousands of steps that it seldom succeeds by what it knows."""
    entropy_per_action: float = -1.5
    """Entropy aimed at, for each dimension of the action; -1.5 is a spread of about 0.05, where the reach is 1."""
    actor_every: int = 4
    """Critic updates per actor update."""
    imitation: float = 0.1
    """Weight of staying near those actions, demonstrated or tried, that the critics prefer to the actor's own."""
    compile: bool | None = None
    """Compile the losses: updates take a third less time, after half a minute of compiling at the start. Needs a C++
    compiler. null: on a CPU that has one, in runs of 20 000 control steps or more."""


@dataclass(frozen=True)
class IqlSettings(LearnerSettings):
    """Implicit Q-learning from the store alone; the world is only evaluated in. `steps` counts updates."""

    name: str = "iql"
    """Which learner."""
    expectile: float = 0.8
    """Expectile of the action values that the state value aims at; 0.5 is their mean, near 1 their best."""
    inverse_temperature: float = 1.0
    """How much harder better actions are cloned, by spreads of the advantage; 0 is plain cloning."""
    tau: float = 0.005
    """Share of the critics that flows into the target critics at each update."""
    reward: str = "progress"
    """progress: the potential is the progress; preferences: a score learnt from which of two frames is further."""
    preference_margin: float = 0.05
    """Pairs of frames whose progress differs by less are not asked about."""
    preference_steps: int = 1000
    """Steps of learning the score."""


@dataclass(frozen=True)
class ControlSacSettings(LearnerSettings):
    """Stable-Baselines3's SAC as it comes, without demonstrations or proposals: a control."""

    name: str = "sb3_sac"
    """Which learner."""
    temperature: float = 1.0
    """Entropy bonus at the start; then adapted. Its own default, 1, outweighs rewards that end an episode for long."""
    tau: float = 0.005
    """Share of the critics that flows into the target critics at each update."""


@dataclass(frozen=True)
class ControlPpoSettings(LearnerSettings):
    """Stable-Baselines3's PPO as it comes, without demonstrations or proposals: a control."""

    name: str = "sb3_ppo"
    """Which learner."""
    width: int = 64
    """Width of the hidden layers."""
    batch: int = 64
    """Decisions in a batch."""
    rollout: int = 512
    """Decisions of each world between two rounds of updates."""
    epochs: int = 10
    """Passes over them."""


LEARNERS: dict[str, type[LearnerSettings]] = {
    "sac": SacSettings,
    "iql": IqlSettings,
    "sb3_sac": ControlSacSettings,
    "sb3_ppo": ControlPpoSettings,
}
