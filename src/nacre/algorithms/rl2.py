"""RL^2: Duan et al. 2016 (arXiv:1611.02779); E-RL^2: Stadie et al. 2018 (arXiv:1803.01118). Trained by PPO.

  L1   while not done:
  L2     draw N tasks; for each a trial: K episodes, one after another, with a fresh memory h = 0
  L3       at every env step: h <- core(h, [obs, action before, reward before, episode over]); a ~ pi(a | h)
  L4     advantages A over the whole trial (or per episode); E-RL^2: rewards of its first episodes count for nothing
  L5     for some epochs, for minibatches of whole trials: sweep the core over the trials; PPO step on pi and V
  L6   meta-test: act as in L3; the memory is all that adapts

What the published codes differ in, and curves with them, are options: what resets the memory, how far credit reaches, what is
fed at the beginning of an episode (docs/algorithms/rl2.md).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import distributions, nn, rollout
from nacre.types import (
    Environment,
    EnvSpec,
    Metric,
    Trajectory,
    Transition,
    require_fraction,
    require_not_negative,
    require_positive,
    take_tasks,
    task_count,
)  # fmt: skip
from nacre.updates import ppo
from nacre.updates.trials import Sequences, advantages, encoded, sequences


@dataclass(frozen=True)
class Config:
    """Bare defaults are ProMP's baseline RL^2, which PEARL is compared with (ProMP branch full_code, rl2_run_sweep.py)."""

    core: Literal["gru", "lstm"] = "lstm"
    width: int = 64  # units of the core
    hidden: tuple[int, ...] = ()  # layers between the core and each head
    memory_reset: Literal["trial", "episode"] = (
        "trial"  # when h is forgotten; episode: no meta-learning, for comparison
    )
    input_reset: bool = False  # the first step of an episode sees zeros instead of the action, reward and end before it
    advantages: Literal["trial", "episode"] = "trial"  # trial: credit crosses episodes
    free_episodes: int = 0  # of a trial's first ones rewards do not count (E-RL^2)
    episodes: int = 0  # of a trial in training; 0: the family's
    tasks: Literal["fresh", "fixed"] = "fresh"  # fresh: drawn from the family's distribution; fixed: its training tasks
    tasks_per_iteration: int = 100
    updates_per_epoch: int = 1  # minibatches
    epochs: int = 5
    learning_rate: float = 1e-3  # Adam
    decay_env_steps: int = 0  # the learning rate falls linearly to a twentieth by this env step; 0: constant
    max_gradient: float = 0.0  # gradients of a larger norm are scaled down to it; 0: never
    truncate: int = 0  # gradients reach back at most about so many env steps; 0: over the whole trial
    discount: float = 0.99
    gae_decay: float = 1.0  # lambda
    clip: float = 0.2  # of PPO's ratio
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    initial_std: float = 1.0  # of continuous actions, in their range of [-1, 1]

    def __post_init__(self):
        require_positive(self, "width tasks_per_iteration updates_per_epoch epochs learning_rate clip initial_std")
        require_not_negative(self, "free_episodes episodes decay_env_steps max_gradient truncate value_weight "
                             "entropy_weight")  # fmt: skip
        require_fraction(self, "discount gae_decay")
        if any(units < 1 for units in self.hidden):
            raise ValueError(f"hidden must name layers of at least one unit, got {self.hidden}")
        if self.tasks_per_iteration % self.updates_per_epoch:
            raise ValueError(
                f"updates_per_epoch ({self.updates_per_epoch}) must divide tasks_per_iteration ({self.tasks_per_iteration}): "
                "minibatches are whole trials"
            )
        if self.episodes and self.free_episodes >= self.episodes:
            raise ValueError(f"free_episodes ({self.free_episodes}) must be below episodes ({self.episodes})")


# ------------------------------------------------------------------------------------------------------ networks


class Networks(eqx.Module):
    core: nn.RecurrentCore
    policy: nn.MLP
    value: nn.MLP
    log_std: Array | None  # of continuous actions, [A]


class State(eqx.Module):
    """All that training changes."""

    nets: Networks
    optimiser: Any
    scale: Array  # running mean square of discounted returns, by which values are scaled
    env_steps: Array  # counters, int32
    updates: Array  # gradient steps


class Memory(NamedTuple):
    """What an agent carries through a trial, leading axes [N, E]."""

    state: Array  # [N, E, state_size] of the core, after the last env step that counted
    proposed: Array  # the same after the one being made, until it counts
    action: Array  # [N, E, A] before; one-hot where actions are discrete
    reward: Array  # [N, E] before
    over: Array  # [N, E] 1 if that was the last step of an episode
    begun: Array  # [N, E] 0 at the first step of an episode


@dataclass(frozen=True)
class RL2:
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    metrics_help = {  # noqa: RUF012  read only
        **ppo.METRICS,
        "collect/return": Metric("reward", "mean return of the trials' episodes"),
        "collect/return_last": Metric("reward", "mean return of the trials' last episodes"),
        "gradient/norm": Metric("", "norm of the gradient before it is scaled down"),
    }

    def __post_init__(self):
        if self.config.free_episodes >= self.trial_episodes:
            raise ValueError(
                f"free_episodes ({self.config.free_episodes}) must be below the {self.trial_episodes} episodes of a trial of "
                f"{self.spec.name}: nothing would be learnt from"
            )

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def trial_episodes(self) -> int:
        return self.config.episodes or self.spec.trial_episodes

    def networks(self, key: Array) -> Networks:
        c, spec = self.config, self.spec
        core_key, policy_key, value_key = jax.random.split(key, 3)
        core = nn.RecurrentCore(spec.obs_size + spec.action.size + 2, c.width, c.core, key=core_key)
        policy = nn.MLP((c.width, *c.hidden, spec.action.size), key=policy_key, hidden_bias=0.0)
        value = nn.MLP((c.width, *c.hidden, 1), key=value_key, hidden_bias=0.0)
        log_std = None if spec.discrete else jnp.full(spec.action.size, math.log(c.initial_std), jnp.float32)
        return Networks(core, policy, value, log_std)

    @property
    def adam(self) -> optax.GradientTransformation:
        c = self.config
        rate = c.learning_rate
        if c.decay_env_steps:
            per_step = (
                self.trial_episodes * self.spec.horizon * c.tasks_per_iteration / (c.epochs * c.updates_per_epoch)
            )
            rate = optax.linear_schedule(rate, rate / 20, max(1, round(c.decay_env_steps / per_step)))
        clip = optax.clip_by_global_norm(c.max_gradient) if c.max_gradient else optax.identity()
        return optax.chain(clip, optax.adam(rate))

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        nets = self.networks(key)
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(nets, self.adam.init(nets), jnp.ones(()), *counters)

    def params(self, state: State) -> Networks:
        return state.nets

    # ----------------------------------------------------------------------------------------- memory, acting

    def begin(self, params: Networks, key: Array, rows: tuple[int, int]) -> Memory:  # L2
        zeros = jnp.zeros(rows)
        state = jnp.zeros((*rows, params.core.state_size))
        return Memory(state, state, jnp.zeros((*rows, self.spec.action.size)), zeros, zeros, zeros)

    def act(self, params: Networks, memory: Memory, obs: Array, key: Array, explore: bool):  # L3, L6
        x = self.inputs(obs, memory.action, memory.reward, memory.over, memory.begun)
        before = memory.state
        if self.config.memory_reset == "episode":
            before = jnp.where(memory.begun[..., None] > 0, before, 0.0)
        state = params.core.once(x, before)
        h = params.core.output(state)
        raw = params.policy(h)
        if self.spec.discrete:
            action = jax.random.categorical(key, raw) if explore else raw.argmax(axis=-1)
        else:
            noise = jax.random.normal(key, raw.shape) if explore else 0.0
            action = raw + jnp.exp(params.log_std) * noise
        extras = {"log_prob": self.log_prob(params, raw, action), "value": params.value(h)[..., 0]}
        return action, extras, memory._replace(proposed=state)

    def observe(self, params: Networks, memory: Memory, transition: Transition) -> Memory:
        """Take over what the step that was made says; rows that were over keep their memory."""
        action = encoded(self.spec, transition.action)
        over = (transition.terminal | transition.truncated).astype(jnp.float32)
        new = Memory(memory.proposed, memory.proposed, action, transition.reward, over, 1.0 - over)

        def pick(new, old):
            return jnp.where(transition.valid.reshape(transition.valid.shape + (1,) * (new.ndim - 2)), new, old)

        return jax.tree.map(pick, new, memory._replace(proposed=memory.state))

    def adapt(self, params: Networks, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return memory

    def beliefs(self, params: Networks, memory: Memory) -> dict[str, Array]:
        """The core's output, for pictures: [N, width]."""
        return {"memory": params.core.output(memory.state)[:, 0]}

    # -------------------------------------------------------------------------------------------- the sequence

    def inputs(self, obs: Array, action: Array, reward: Array, over: Array, begun: Array) -> Array:
        """What the core sees, [..., d]; all but obs are of the step before."""
        before = jnp.concatenate([action, reward[..., None], over[..., None]], axis=-1)
        if self.config.input_reset:
            before = before * begun[..., None]
        return jnp.concatenate([obs, before], axis=-1)

    def log_prob(self, params: Networks, raw: Array, action: Array) -> Array:
        """Of actions under the policy's output `raw` [..., A]."""
        if self.spec.discrete:
            return jnp.take_along_axis(jax.nn.log_softmax(raw), action[..., None], axis=-1)[..., 0]
        return distributions.normal_log_prob(action, raw, params.log_std)

    def entropy(self, params: Networks, raw: Array) -> Array:
        if self.spec.discrete:
            log_p = jax.nn.log_softmax(raw)
            return -(jnp.exp(log_p) * log_p).sum(axis=-1)
        each = params.log_std + 0.5 * (1.0 + distributions.LOG_2PI)
        return jnp.broadcast_to(each.sum(), raw.shape[:-1])

    def sweep(self, nets: Networks, trials: Sequences) -> tuple[Array, Array]:
        """The core over whole trials -> the policy's output [N, L, A] and values [N, L]."""
        x = self.inputs(trials.obs, trials.action_before, trials.reward_before, trials.over_before, trials.begun)
        start = jnp.zeros((x.shape[0], nets.core.state_size))
        fresh = trials.begun == 0 if self.config.memory_reset == "episode" else None
        h, _ = nets.core(x, start, trials.valid, fresh, self.config.truncate)
        flat = h.reshape(-1, h.shape[-1])
        return nets.policy(flat).reshape(*h.shape[:2], -1), nets.value(flat).reshape(h.shape[:2])

    # ------------------------------------------------------------------------------------------------- update

    def targets(self, trials: Sequences, scale: Array) -> tuple[Array, Array]:  # L4
        """Advantages and returns [N, L]. Values, and so returns, are in units of sqrt(scale)."""
        c = self.config
        reward = jnp.where(trials.episode < c.free_episodes, 0.0, trials.train_reward) / jnp.sqrt(scale)
        value = trials.extras["value"]
        found = advantages(trials, reward, value, c.discount, c.gae_decay, c.advantages == "episode")
        return found, found + value

    def objective(self, nets: Networks, batch: tuple[Sequences, Array, Array]) -> tuple[Array, dict[str, Array]]:
        """PPO's loss on a minibatch of trials, with their advantages and returns."""
        c, (trials, advantage, returns) = self.config, batch
        raw, value = self.sweep(nets, trials)
        new = self.log_prob(nets, raw, trials.action), self.entropy(nets, raw), value
        old = trials.extras["log_prob"], trials.extras["value"]
        loss = ppo.Objective(c.clip, 0.0, c.value_weight, c.entropy_weight).loss
        return loss(*new, *old, advantage, returns, trials.weight)

    def learn(self, state: State, data: Trajectory, key: Array) -> tuple[State, dict[str, Array]]:  # L5
        """All gradient steps on the trials [K, N, 1, T] of an iteration."""
        c, trials = self.config, sequences(data, self.spec)
        found, returns = self.targets(trials, state.scale)
        batch = trials, ppo.standardised(found, trials.weight), returns
        n, parts = c.tasks_per_iteration, c.updates_per_epoch
        gradient = eqx.filter_value_and_grad(self.objective, has_aux=True)

        def step(carry, rows):
            nets, optimiser = carry
            (_, metrics), grads = gradient(nets, jax.tree.map(lambda x: x[rows], batch))
            change, optimiser = self.adam.update(grads, optimiser, nets)
            return (optax.apply_updates(nets, change), optimiser), {**metrics, "gradient/norm": optax.tree.norm(grads)}

        shuffled = jax.vmap(lambda k: jax.random.permutation(k, n))(jax.random.split(key, c.epochs))
        rows = shuffled.reshape(c.epochs * parts, n // parts)
        (nets, optimiser), metrics = jax.lax.scan(step, (state.nets, state.optimiser), rows)
        square, mean = (ppo.mean_of(x, trials.weight) for x in (returns**2, returns))
        explained = 1.0 - ppo.mean_of(found**2, trials.weight) / jnp.maximum(square - mean**2, 1e-8)
        # values are in units of the returns' root mean square, which follows slowly
        follow = jnp.where(state.updates == 0, 1.0, 0.05)
        scale = jnp.maximum(state.scale * (1.0 + follow * (square - 1.0)), 1e-4)
        env_steps = state.env_steps + trials.valid.sum().astype(jnp.int32)
        metrics = jax.tree.map(lambda x: x.mean(), metrics) | {"value/explained": explained}
        return State(nets, optimiser, scale, env_steps, state.updates + c.epochs * parts), metrics

    # --------------------------------------------------------------------------------------------- the schedule

    def minimum_env_steps(self, env: Environment) -> int:
        return self.config.tasks_per_iteration * self.trial_episodes * self.spec.horizon

    def phase(self, state: State, env: Environment) -> str:
        return "iteration"

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key, learn_key = jax.random.split(key, 3)
        if c.tasks == "fresh":
            tasks = env.sample_tasks(task_key, c.tasks_per_iteration)
        else:
            chosen = jax.random.randint(task_key, (c.tasks_per_iteration,), 0, task_count(env.train_tasks))
            tasks = take_tasks(jax.tree.map(jnp.asarray, env.train_tasks), chosen)
        data, _ = rollout.trial(env, self, state.nets, tasks, trial_key, episodes=self.trial_episodes, explore=True)
        returns = data.episode_return  # [K, N, 1]
        metrics = {"collect/return": returns.mean(), "collect/return_last": returns[-1].mean()}
        state, more = _learn(self, state, data, learn_key)
        return state, {**metrics, **more}


_learn = partial(jax.jit, static_argnums=0)(RL2.learn)
