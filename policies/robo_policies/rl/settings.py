"""Settings of reinforcement learning: plain dataclasses, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from robo_rm.shaping.settings import ShapingSettings


@dataclass(frozen=True)
class LearningSettings:
    """The loop around the learner."""

    discount: float = 0.998
    """g for one control step; a macro-action of k steps is discounted by g^k. A potential pulls only as far as g
    reaches: 1 / (1 - g) control steps should be several times the length of an episode."""
    action_repeat: int = 5
    """Control steps in a macro-action."""
    num_envs: int = 1
    """Environments stepped together, their images scored in one batch."""
    processes: int = 0
    """Processes that share the environments and step them while this one learns; 0 steps them in this process."""
    gradient_steps: int = 20
    """Updates of the critics for each macro-action."""
    learning_starts: int = 50
    """Macro-actions before the first update: the behaviour prior's, or random ones without it."""
    demonstration_fraction: float = 0.5
    """Fraction of each batch that comes from demonstrations."""
    success_fraction: float = 0.25
    """Fraction of each batch that comes from the learner's own successful episodes, once there are some; it is taken
    from the demonstrations' fraction as far as that goes. For `learner=sac`."""
    prior_noise: float = 0.1
    """Standard deviation of the noise on the behaviour prior's actions while exploring."""
    prior_episode_fraction: float = 0.5
    """Fraction of the episodes that the behaviour prior controls alone, until four have succeeded."""
    prior_wide_noise: float = 0.3
    """Standard deviation of the noise on its actions in every other one of those."""
    early_termination_patience: int = 8
    """Where there is a potential: macro-actions without further progress after which an episode is truncated, as by a
    time limit; 0 for never. Evaluations are never truncated early."""
    ignored_states: list[str] = field(default_factory=list)
    """Entries of the environment's state, by their names in the demo store, hidden from learner and behaviour prior.
    Entries that are irrelevant to the task identify single episodes, and are mistaken for the cause of success."""
    n_step: int = 1
    """Macro-actions whose rewards are summed before the critics' value of what follows: n-step returns. For
    `learner=sac`."""
    prior_steps: int = 2000
    """Maximum training steps of the behaviour prior, where no policy folder is given; few demonstrations take fewer.
    0: no behaviour prior."""
    prior_filter: bool = True
    """Where there is a potential, clone only transitions after which it rose higher than after others, or that led to
    success."""
    self_imitation: bool = True
    """Retrain the behaviour prior whenever the learner's own successes have grown by `self_imitation_growth`. A
    filtered prior is also retrained whenever the episodes have grown so, until some succeed."""
    self_imitation_growth: float = 1.4
    """Factor by which the successes, or the episodes, grow between two trainings of the behaviour prior."""
    buffer_size: int = 1_000_000
    """Transitions in the replay buffer."""
    evaluate_every: int = 5000
    """Control steps between evaluations."""
    evaluation_episodes: int = 20
    """Episodes of an evaluation, always with the same initial states."""


@dataclass(frozen=True)
class LearnerSettings:
    """Settings that all learners share."""

    name: str = ""
    """Which learner."""
    width: int = 256
    """Width of the hidden layers."""
    batch_size: int = 256
    """Transitions in a batch."""
    learning_rate: float = 3e-4
    """Of all networks."""


@dataclass(frozen=True)
class SacSettings(LearnerSettings):
    """Soft actor-critic with demonstrations and a behaviour prior: the default."""

    name: str = "sac"
    """Which learner."""
    width: int = 128
    """Width of the hidden layers."""
    critics: int = 5
    """Critics in the ensemble; the target is the minimum of two drawn at random."""
    batch_size: int = 128
    """Transitions in a batch, half of them from demonstrations where there are any."""
    learning_rate: float = 3e-4
    """Of actor, critics and temperature."""
    tau: float = 0.005
    """Step of the target critics towards the critics at each update (Polyak averaging)."""
    temperature: float = 0.005
    """Entropy bonus at the start; then adapted. Shaping pays little per step: a larger bonus outweighs it, and the
    actor explores so widely for its first thousands of steps that it seldom succeeds by what it knows."""
    target_entropy: float = -1.5
    """Target entropy for each dimension of the action; -1.5 is a standard deviation of about 0.05 in actions of -1 to
    1."""
    policy_delay: int = 4
    """Critic updates per actor update."""
    imitation_weight: float = 0.1
    """Weight of staying near those actions, demonstrated or tried, that the critics prefer to the actor's own."""
    compile: bool | None = None
    """Compile the losses: updates take a third less time, after half a minute of compiling at the start. Needs a C++
    compiler. null: on a CPU that has one, in runs of 20 000 control steps or more."""


@dataclass(frozen=True)
class IqlSettings(LearnerSettings):
    """Implicit Q-learning from the store alone; the environment only evaluates. `steps` counts updates."""

    name: str = "iql"
    """Which learner."""
    expectile: float = 0.8
    """Expectile of the action values that the state value regresses to; 0.5 is their mean, near 1 their maximum."""
    inverse_temperature: float = 1.0
    """How strongly better actions are preferred in cloning, per standard deviation of the advantage; 0 is plain
    cloning."""
    tau: float = 0.005
    """Step of the target critics towards the critics at each update (Polyak averaging)."""
    reward: str = "progress"
    """progress: the potential is the progress; preferences: a score learned from which of two frames is further."""
    preference_margin: float = 0.05
    """Pairs of frames whose progress differs by less are left out."""
    preference_steps: int = 1000
    """Training steps of the score."""


@dataclass(frozen=True)
class Sb3SacSettings(LearnerSettings):
    """Stable-Baselines3's unmodified SAC, without demonstrations or behaviour prior: a baseline."""

    name: str = "sb3_sac"
    """Which learner."""
    temperature: float = 1.0
    """Entropy bonus at the start; then adapted. Its own default, 1, outweighs rewards that end an episode for long."""
    tau: float = 0.005
    """Step of the target critics towards the critics at each update (Polyak averaging)."""


@dataclass(frozen=True)
class Sb3PpoSettings(LearnerSettings):
    """Stable-Baselines3's unmodified PPO, without demonstrations or behaviour prior: a baseline."""

    name: str = "sb3_ppo"
    """Which learner."""
    width: int = 64
    """Width of the hidden layers."""
    batch_size: int = 64
    """Transitions in a batch."""
    rollout_steps: int = 512
    """Macro-actions of each environment between two rounds of updates."""
    epochs: int = 10
    """Passes over them."""


LEARNERS: dict[str, type[LearnerSettings]] = {
    "sac": SacSettings,
    "iql": IqlSettings,
    "sb3_sac": Sb3SacSettings,
    "sb3_ppo": Sb3PpoSettings,
}


@dataclass(frozen=True)
class RunSettings:
    """Everything that identifies a run.

    Attributes:
        env: environment to learn in.
        store: demo store, or None to learn without demonstrations.
        demonstrations: maximum number of demonstrations; None for all.
        reward_model: folder of the reward model, or None.
        potential: ``model``, ``true`` (the simulator's progress) or ``none``.
        policy: folder of the behaviour prior, or None.
        shaping: how the learning reward is composed.
        learning: the loop.
        learner: the networks and their training.
        seed: of everything.
        max_steps: control steps of an episode; None for the environment's own limit.
    """

    env: str
    store: str | None
    demonstrations: int | None
    reward_model: str | None
    potential: str
    policy: str | None
    shaping: ShapingSettings
    learning: LearningSettings
    learner: LearnerSettings
    seed: int
    max_steps: int | None

    @property
    def uses_prior(self) -> bool:
        """Whether the learner takes actions of a behaviour prior."""
        return isinstance(self.learner, SacSettings)

    @property
    def uses_demonstrations(self) -> bool:
        """Whether the learner's batches contain demonstrations."""
        return not isinstance(self.learner, Sb3SacSettings | Sb3PpoSettings)
