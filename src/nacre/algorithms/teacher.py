"""Learning to explore by meta-policy gradients: Xu, Liu, Zhao & Peng 2018 (arXiv:1803.05044), Algorithm 1. One task.

  L1   a student pi (DDPG) and a teacher pi_e, which explores for it; replay B
  L2   while not done:
  L3     D0 <- env steps acted by the teacher
  L4     pi' <- the student after gradient steps on D0 alone; they are only tried
  L5     D1 <- env steps acted by pi'; meta-reward R = return of pi' - return of pi
  L6     teacher <- step along grad sum log pi_e(a|s) over D0, times R less its running mean, over its running deviation
  L7     B <- B + D0 + D1 (and what pi acted to be measured)
  L8     pi <- gradient steps on B
  L9   meta-test: pi acts, deterministically; nothing adapts

The paper has no official code. What it leaves open is an option here (docs/algorithms/teacher.md). The student's gradient steps
are in nacre.updates.students.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import distributions, nn, replay, rollout
from nacre._checks import require
from nacre.replay import Replay
from nacre.types import Environment, EnvSpec, Trajectory, Transition, take_tasks, task_count
from nacre.updates import exploring, students
from nacre.updates.exploring import STD_RANGE, Explorer, Noise, Scale, Shortened
from nacre.updates.students import Kind, Learning, Student


@dataclass(frozen=True)
class Config:
    """Bare defaults: the paper's where it says (env steps of D0 and D1, layer normalisation, Adam), else those of the DDPG that it
    is built on (OpenAI Baselines), and ours for the teacher."""

    student: Kind = "ddpg"
    # student-mean: the student's action with a learnt variance; none: the student's own noise for as many env steps
    teacher: Literal["independent", "student-mean", "none"] = "independent"
    own_noise: Literal["gaussian", "ornstein-uhlenbeck"] = (
        "ornstein-uhlenbeck"  # of DDPG and TD3; SAC's policy is its own
    )
    noise_std: float = 0.2  # of own noise, in the agent's units, in the long run
    noise_pull: float = 0.15  # share of Ornstein-Uhlenbeck noise that is forgotten in an env step
    hidden: tuple[int, ...] = (64, 64)  # of the student's networks
    norm: bool = True  # layer normalisation in them
    teacher_hidden: tuple[int, ...] = (64, 64)
    teacher_std: float = 0.5  # where the teacher's standard deviations start, in the agent's units
    teacher_rate: float = 1e-3  # eta, Adam
    teacher_steps: int = 100  # env steps of D0: whole episodes, or the beginning of one
    student_steps: int = 200  # env steps of D1
    before: Literal["rollout", "same-starts", "last"] = (
        "rollout"  # return of pi: it acts as many env steps as pi' does;
    )
    # same-starts: from the same states (ours); last: what the pi' before this one had, without env steps (ours)
    measure_noise: bool = False  # pi and pi' keep their own noise while they are measured
    trial_updates: int = 50  # gradient steps from pi to pi'
    trial_data: Literal["fresh", "mixed"] = "fresh"  # mixed: half of each batch is from the replay (ours)
    updates_per_iteration: int = 300  # gradient steps of pi
    initial_steps: int = 0  # env steps with uniformly random actions before all else
    meta_baseline: bool = True  # less the running mean of meta-rewards
    normalise: bool = True  # meta-rewards count in units of their running deviation
    meta_memory: float = 0.05  # share that the newest meta-reward has in running mean and deviation
    batch_size: int = 64
    policy_rate: float = 1e-4  # Adam
    critic_rate: float = 1e-3  # Adam
    discount: float = 0.99
    target_rate: float = 0.01
    reward_scale: float = 1.0
    temperature: float = 0.2  # of a SAC student, where it starts

    def __post_init__(self):
        require(
            self,
            positive="noise_std teacher_std teacher_rate teacher_steps student_steps updates_per_iteration batch_size "
                     "policy_rate critic_rate reward_scale temperature",
            not_negative="trial_updates initial_steps",
            fraction="noise_pull meta_memory discount target_rate",
            layers="hidden teacher_hidden",
        )  # fmt: skip
        if self.teacher != "none" and not self.trial_updates:
            raise ValueError("the meta-reward is what trial_updates gradient steps on D0 gain, and trial_updates is 0")
        if not STD_RANGE[0] <= self.teacher_std <= STD_RANGE[1]:
            raise ValueError(f"teacher_std must lie within {STD_RANGE[0]} and {STD_RANGE[1]}, got {self.teacher_std!r}")


class Params(eqx.Module):
    """What acting needs, and the teacher for pictures."""

    policy: Any
    explorer: Explorer


class State(eqx.Module):
    """All that training changes."""

    learning: Learning  # of pi
    explorer: Explorer
    optimiser: Any  # the teacher's
    scale: Scale
    last: Array  # return of the pi' before this one
    replay: Replay
    env_steps: Array  # counters, int32
    updates: Array  # gradient steps of pi; those that are only tried are not counted


@dataclass(frozen=True)
class Teacher:
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    observes = False
    test_episodes = 1
    test_exploration = 0
    metrics_help = {**students.METRICS, **exploring.METRICS}  # noqa: RUF012  read only

    # -------------------------------------------------------------------------------------------------- set-up

    def __post_init__(self):
        if self.spec.discrete:
            raise ValueError(
                f"teacher explores with Gaussian noise on continuous actions, and those of {self.spec.name} are discrete"
            )

    def check_family(self, env: Environment) -> None:
        """Raises ValueError unless there is one task, for training and test."""
        n, tasks = task_count(env.train_tasks), (env.train_tasks, env.test_tasks)
        if n != 1 or not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a[:1] == b).all()), *tasks))):
            raise ValueError(
                f"teacher learns to explore a single task that it is also tested on; {env.spec.name} has {n} to train on and "
                f"{task_count(env.test_tasks)} to be tested on; take pendulum, far-goal, half-cheetah or gymnasium/<id>"
            )

    @property
    def student(self) -> Student:
        c = self.config
        return Student(c.student, self.spec, c.hidden, c.norm, c.policy_rate, c.critic_rate, c.discount, c.target_rate,
                       c.reward_scale, c.batch_size, c.temperature)  # fmt: skip

    @property
    def adam(self) -> optax.GradientTransformation:
        return optax.adam(self.config.teacher_rate)

    def init(self, key: Array, env: Environment, env_steps: int) -> State:  # L1
        c, size = self.config, self.spec.action.size
        student_key, teacher_key = jax.random.split(key)
        sizes = self.spec.obs_size, *c.teacher_hidden, size
        net = nn.MLP(sizes, key=teacher_key) if c.teacher == "independent" else None
        explorer = Explorer(net, jnp.full(size, math.log(c.teacher_std), jnp.float32))
        store = replay.create(self.spec, 1, env_steps)
        scale = Scale(*(jnp.zeros(()) for _ in range(3)))
        learning = self.student.begin(student_key)
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(learning, explorer, self.adam.init(explorer), scale, jnp.zeros(()), store, *counters)

    def grow(self, state: State, env: Environment, env_steps: int) -> State:
        """The same state with room for the experience of a longer run."""
        blocks = replay.blocks_for(self.spec, 1, env_steps)
        if blocks <= state.replay.blocks:
            return state
        return dataclasses.replace(state, replay=replay.grow(state.replay, blocks))

    def params(self, state: State) -> Params:
        return Params(state.learning.nets.policy, state.explorer)

    # ------------------------------------------------------------------------------------------------- acting

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Noise:
        return Noise(jnp.zeros((*rows, self.spec.action.size)))

    def act(self, params: Params, memory: Noise, obs: Array, key: Array, explore: bool):  # L9
        """The student; explore: with its own noise."""
        c, action = self.config, self.student.best(params.policy, obs)
        if not explore:
            return action, (), memory
        noise = jax.random.normal(key, action.shape)
        if c.student == "sac":
            return self.student.draw(params.policy, obs, noise), (), memory
        lasts = c.own_noise == "ornstein-uhlenbeck"
        memory = memory.drawn(noise, c.noise_std, c.noise_pull if lasts else 1.0)
        return jnp.clip(action + memory.now, -1.0, 1.0), (), memory

    def observe(self, params: Params, memory: Noise, transition: Transition) -> Noise:
        return memory

    def adapt(self, params: Params, memory: Noise, episodes: Trajectory, key: Array) -> Noise:
        """Nothing but the noise, which begins anew."""
        return Noise(jnp.zeros_like(memory.now))

    def beliefs(self, params: Params, memory: Noise) -> dict[str, Array]:
        return {}

    def mean(self, explorer: Explorer, policy: Any, obs: Array) -> Array:
        return explorer.mean(self.student.best(policy, obs), obs)

    def explore(self, params: Params, obs: Array, key: Array) -> Array:
        """The teacher's draw, which the environment clips to its bounds."""
        mean = self.mean(params.explorer, params.policy, obs)
        return mean + jnp.exp(params.explorer.log_std) * jax.random.normal(key, mean.shape)

    def anything(self, memory: Any, obs: Array, key: Array) -> Array:
        return rollout.uniform_action(self.spec, key, obs.shape[:2])

    # ------------------------------------------------------------------------------------------------- update

    def teacher_loss(self, explorer: Explorer, policy: Any, seen: Trajectory, advantage: Array) -> Array:  # L6
        """-advantage * log P(D0): the dynamics' share of it does not depend on the teacher, so log pi_e(a|s) is summed over D0."""
        mean = self.mean(explorer, policy, seen.obs)
        log_prob = distributions.normal_log_prob(seen.action, mean, explorer.log_std)
        return -advantage * (log_prob * seen.valid).sum()

    @partial(jax.jit, static_argnums=0)
    def instruct(self, state: State, seen: Trajectory, reward: Array) -> tuple[State, dict[str, Array]]:  # L6
        """The teacher's step for a meta-reward; seen: D0 as drawn, before clipping."""
        c, policy = self.config, state.learning.nets.policy
        scale = state.scale.include(reward, c.meta_memory)
        advantage = reward - state.scale.mean if c.meta_baseline else reward
        if c.normalise:
            advantage = advantage / jnp.sqrt(scale.square + 1e-8)
        if c.meta_baseline or c.normalise:  # of the first one there is nothing to be above, and no deviation
            advantage = jnp.where(state.scale.count > 0, advantage, 0.0)
        gradient = eqx.filter_grad(self.teacher_loss)(state.explorer, policy, seen, advantage)
        change, optimiser = self.adam.update(gradient, state.optimiser, state.explorer)
        explorer = optax.apply_updates(state.explorer, change).held()
        apart = jnp.abs(self.mean(state.explorer, policy, seen.obs) - self.student.best(policy, seen.obs)).mean(axis=-1)
        metrics = {
            "meta/reward": reward, "meta/advantage": advantage, "gradient/teacher": optax.tree.norm(gradient),
            "teacher/std": jnp.exp(explorer.log_std.mean()), "teacher/apart": (apart * seen.valid).sum() / seen.valid.sum(),
        }  # fmt: skip
        return dataclasses.replace(state, explorer=explorer, optimiser=optimiser, scale=scale), metrics

    # --------------------------------------------------------------------------------------------- the schedule

    def steps_of(self, steps: int) -> tuple[int, int]:
        """Episodes, and their length, that make `steps` env steps or a little more."""
        return -(-steps // self.spec.horizon), min(steps, self.spec.horizon)

    @property
    def collections(self) -> tuple[int, ...]:
        """Env steps of each rollout of an iteration."""
        c = self.config
        return (c.teacher_steps, *(c.student_steps,) * (1 if c.before == "last" else 2))

    def minimum_env_steps(self, env: Environment) -> int:
        sizes = (self.steps_of(steps) for steps in (self.config.initial_steps, *self.collections))
        return sum(episodes * length for episodes, length in sizes)

    def phase(self, state: State, env: Environment) -> str:
        return "initial" if self.config.initial_steps and int(jnp.max(state.env_steps)) == 0 else "iteration"

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L2
        c = self.config
        collect_key, learn_key = jax.random.split(key)
        if phase == "initial":
            data = self.collect(env, rollout.Scripted(self.anything, self.spec), (), collect_key, c.initial_steps)
            return self.keep(state, data), {"collect/return": rollout.mean_return(data)}
        state, metrics = (self.practise if c.teacher == "none" else self.lesson)(state, env, collect_key)
        learning, more = _learn(self, state.learning, state.replay, learn_key)  # L8
        updates = state.updates + c.updates_per_iteration
        return dataclasses.replace(state, learning=learning, updates=updates), {**metrics, **more}

    def lesson(self, state: State, env: Environment, key: Array) -> tuple[State, dict[str, Array]]:
        """L3 to L7: the teacher learns and the replay grows; the student stays as it is."""
        c = self.config
        teacher_key, trial_key, measure_key = jax.random.split(key, 3)
        guide = rollout.Scripted(self.explore, self.spec)
        seen = self.collect(env, guide, self.params(state), teacher_key, c.teacher_steps)  # L3
        tried, moved = _try(self, state, seen, trial_key)  # L4
        after_key, before_key = jax.random.split(measure_key)
        if c.before == "same-starts":
            before_key = jax.random.clone(after_key)
        after = self.measure(env, tried.nets.policy, state.explorer, after_key)  # L5
        kept, earned = [seen, after], rollout.mean_return(after)
        last = jnp.where(state.scale.count == 0, earned, state.last)
        if c.before != "last":
            kept.append(self.measure(env, state.learning.nets.policy, state.explorer, before_key))
            last = rollout.mean_return(kept[-1])
        state, metrics = self.instruct(state, seen, earned - last)  # L6
        for data in kept:  # L7
            state = self.keep(state, data)
        metrics |= {
            "collect/return_teacher": rollout.mean_return(seen), "collect/return_student": last,
            "collect/return_trial": earned, "trial/moved": moved,
        }  # fmt: skip
        return dataclasses.replace(state, last=earned), metrics

    def practise(self, state: State, env: Environment, key: Array) -> tuple[State, dict[str, Array]]:
        """Without a teacher: as many env steps as a lesson, with the student's own noise."""
        for k, steps in enumerate(self.collections):
            data = self.act_for(env, self.params(state), jax.random.fold_in(key, k), steps, explore=True)
            state = self.keep(state, data)
        return state, {"collect/return": rollout.mean_return(data)}

    def measure(self, env: Environment, policy: Any, explorer: Explorer, key: Array) -> Trajectory:
        c = self.config
        return self.act_for(env, Params(policy, explorer), key, c.student_steps, explore=c.measure_noise)

    def act_for(self, env: Environment, params: Params, key: Array, steps: int, explore: bool) -> Trajectory:
        memory = self.begin(params, key, (1, self.steps_of(steps)[0]))
        return self.collect(env, self, memory, key, steps, params, explore)

    def collect(
        self, env: Environment, actor: Any, memory: Any, key: Array, steps: int, params: Any = (), explore: bool = True
    ) -> Trajectory:
        """Episodes of the one task, [1, E, T]; where one ends early another begins, so that all env steps are acted."""
        episodes, length = self.steps_of(steps)
        task = take_tasks(jax.tree.map(jnp.asarray, env.train_tasks), jnp.zeros(1, jnp.int32))
        part = env if length == self.spec.horizon else Shortened(env, length)
        quiet = lambda _, kept, over: Noise(kept.now * ~over[..., None]) if isinstance(kept, Noise) else kept  # noqa: E731
        return rollout.episode(
            part, actor, params, memory, task, key, episodes=episodes, explore=explore, refill=quiet
        )[0]

    def keep(self, state: State, data: Trajectory) -> State:
        store = _store(self, state.replay, data)
        return dataclasses.replace(state, replay=store, env_steps=state.env_steps + data.valid.sum().astype(jnp.int32))


def _store(algorithm: Teacher, store: Replay, data: Trajectory) -> Replay:
    """With the actions that the environment saw."""
    data = data._replace(action=jnp.clip(data.action, -1.0, 1.0))
    return replay.append(store, algorithm.spec, jnp.zeros(1, jnp.int32), data, recent=False)


@partial(jax.jit, static_argnums=0)
def _learn(algorithm: Teacher, learning: Learning, store: Replay, key: Array):
    return algorithm.student.learn(learning, store, key, algorithm.config.updates_per_iteration)


@partial(jax.jit, static_argnums=0)
def _try(algorithm: Teacher, state: State, seen: Trajectory, key: Array) -> tuple[Learning, Array]:
    """The student after steps on D0, and how far they moved its policy."""
    c, before = algorithm.config, state.learning
    fresh = _store(algorithm, replay.create(algorithm.spec, 1, seen.valid.size), seen)
    beside = state.replay if c.trial_data == "mixed" else None
    tried, _ = algorithm.student.learn(before, fresh, key, c.trial_updates, beside)
    off = jax.tree.map(lambda a, b: a - b, tried.nets.policy, before.nets.policy)
    return tried, optax.tree.norm(off)
