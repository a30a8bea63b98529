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
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import nn
from nacre._checks import require
from nacre.attention import AttentionCore
from nacre.distributions import Actions
from nacre.images import ImageEncoder
from nacre.per_action import PerActionCore, PerActionHead
from nacre.per_pair import PerPairCore
from nacre.types import Environment, EnvSpec, Metric, Trajectory, Transition
from nacre.updates import baselines, ppo, recurrent
from nacre.updates.recurrent import Memory
from nacre.updates.trials import METRICS, Sequences, advantages, collect, draw_tasks, packed, require_regret, sequences


@dataclass(frozen=True)
class Config:
    """Bare defaults have the sizes of ProMP's baseline RL^2, which PEARL is compared with (ProMP branch full_code,
    rl2_run_sweep.py), and the paper's choices; the preset `paper` is that baseline in all."""

    core: Literal["gru", "lstm", "attention", "per-action", "per-pair"] = "lstm"
    width: int = 64  # units of the core
    layers: int = 2  # of attention
    heads: int = 4  # of attention
    plan_steps: int = 5  # of value iteration, with core=per-pair
    channels: tuple[int, ...] = (16, 32)  # convolutions over images, where observations are some
    image_features: int = 64  # numbers that they make of an image
    input_obs: bool = False  # the core sees the observation before, too, to which the action and reward before belong
    hidden: tuple[int, ...] = ()  # layers between the core and each head
    memory_reset: Literal["trial", "episode"] = "trial"  # when all before is forgotten; episode: no meta-learning
    input_reset: bool = False  # the first step of an episode sees zeros instead of the action, reward and end before it
    advantages: Literal["trial", "episode"] = "trial"  # trial: credit crosses episodes
    baseline: Literal["learnt", "linear"] = "learnt"  # linear: fitted to each task's returns, as in rllab and ProMP
    free_episodes: int = 0  # of a trial's first ones rewards do not count (E-RL^2)
    episodes: int = 0  # of a trial in training; 0: the family's
    tasks: Literal["fresh", "fixed"] = "fresh"  # fresh: drawn from the family's distribution; fixed: its training tasks
    learn_from: Literal["reward", "regret"] = "reward"  # regret: of each action, which families know in training
    tasks_per_iteration: int = 100
    pack_rows: int = 0  # rows into which trials that end early are laid one after another; 0: a row for each
    updates_per_epoch: int = 1  # minibatches
    epochs: int = 5
    learning_rate: float = 1e-3  # Adam
    decay_env_steps: int = 0  # the learning rate falls linearly to a twentieth by this env step; 0: constant
    max_gradient: float = 0.0  # gradients of a larger norm are scaled down to it; 0: never
    truncate: int = 0  # gradients reach back at most about so many env steps; 0: over the whole trial
    discount: float = 0.99
    first_discount: float = 0.0  # with which training begins; 0: with `discount`
    discount_env_steps: int = (
        0  # by which its horizon 1 / (1 - discount) has grown, geometrically, to that of `discount`
    )
    gae_decay: float = 1.0  # lambda
    clip: float = 0.2  # of PPO's ratio
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    initial_std: float = 1.0  # of continuous actions, in their range of [-1, 1]

    def __post_init__(self):
        require(
            self,
            positive="width layers heads plan_steps image_features tasks_per_iteration updates_per_epoch epochs "
                     "learning_rate clip initial_std",
            not_negative="free_episodes episodes pack_rows discount_env_steps decay_env_steps max_gradient truncate "
                         "value_weight entropy_weight",
            fraction="discount gae_decay",
            layers="channels",
        )  # fmt: skip
        if self.free_episodes and self.advantages == "episode":
            raise ValueError("free_episodes pay in later episodes, which advantages=episode cuts off: use trial")
        if self.core == "per-pair" and not self.input_obs:
            raise ValueError("core=per-pair must know which state an action was made in: set input_obs")
        if self.core == "attention" and self.truncate:
            raise ValueError("truncate is for recurrent cores; attention sees the trial at once: leave it 0")
        if self.core == "attention" and self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if bool(self.first_discount) != bool(self.discount_env_steps) or not 0 <= self.first_discount < 1:
            got = f"{self.first_discount} and {self.discount_env_steps}"
            raise ValueError(f"first_discount, in [0, 1), and discount_env_steps go together, got {got}")
        if any(units < 1 for units in self.hidden):
            raise ValueError(f"hidden must name layers of at least one unit, got {self.hidden}")
        name = "pack_rows" if self.pack_rows else "tasks_per_iteration"
        if getattr(self, name) % self.updates_per_epoch:
            raise ValueError(
                f"updates_per_epoch ({self.updates_per_epoch}) must divide {name} ({getattr(self, name)}): minibatches are "
                f"whole {'rows' if self.pack_rows else 'trials'}"
            )
        if self.pack_rows > self.tasks_per_iteration:
            raise ValueError(
                f"pack_rows ({self.pack_rows}) must not be above tasks_per_iteration ({self.tasks_per_iteration})"
            )
        if self.episodes and self.free_episodes >= self.episodes:
            raise ValueError(f"free_episodes ({self.free_episodes}) must be below episodes ({self.episodes})")


# ------------------------------------------------------------------------------------------------------ networks


class Networks(eqx.Module):
    eyes: ImageEncoder | None  # where observations are images
    core: nn.RecurrentCore | AttentionCore | PerActionCore | PerPairCore
    policy: nn.MLP | PerActionHead
    value: nn.MLP | PerActionHead
    log_std: Array | None  # of continuous actions, [A]


class State(eqx.Module):
    """All that training changes."""

    nets: Networks
    optimiser: Any
    scale: Array  # running mean square of discounted returns, by which values are scaled
    env_steps: Array  # counters, int32
    updates: Array  # gradient steps


@dataclass(frozen=True)
class RL2:
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("nets", "scale")
    metrics_help = {  # noqa: RUF012  read only
        **ppo.METRICS,
        **METRICS,
        "learn/packed": Metric("", "share of the env steps for which pack_rows had room"),
    }

    def __post_init__(self):
        c, name = self.config, self.spec.name
        if c.core in ("per-action", "per-pair") and not self.spec.discrete:
            raise ValueError(
                f"core={c.core} keeps a memory for each action, which {name} does not count: its actions are continuous; "
                "use gru, lstm or attention"
            )
        if c.core == "per-pair" and not self.spec.states:
            raise ValueError(f"core=per-pair keeps a memory for each state, and {name} does not name its `states`")
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
        core_key, policy_key, value_key, eyes_key = jax.random.split(key, 4)
        eyes, size = None, spec.obs_size
        if spec.image_shape:
            eyes, size = ImageEncoder(spec.image_shape, c.channels, c.image_features, key=eyes_key), c.image_features
        inputs = size * (1 + c.input_obs) + spec.action.size + 2
        if c.core == "attention":
            room = self.trial_episodes * spec.horizon
            core = AttentionCore(inputs, c.width, c.layers, c.heads, room, key=core_key)
        elif c.core == "per-action":
            core = PerActionCore(inputs, c.width, spec.action.size, key=core_key)
        elif c.core == "per-pair":
            core = PerPairCore(spec.states, c.width, spec.action.size, c.plan_steps, key=core_key)
        else:
            core = nn.RecurrentCore(inputs, c.width, c.core, key=core_key)
        if c.core in ("per-action", "per-pair"):
            policy, value = (
                PerActionHead(core.width, c.hidden, spec.action.size, each, key=key)
                for each, key in ((True, policy_key), (False, value_key))
            )
        else:
            policy = nn.MLP((c.width, *c.hidden, spec.action.size), key=policy_key, hidden_bias=0.0)
            value = nn.MLP((c.width, *c.hidden, 1), key=value_key, hidden_bias=0.0)
        log_std = None if spec.discrete else jnp.full(spec.action.size, math.log(c.initial_std), jnp.float32)
        return Networks(eyes, core, policy, value, log_std)

    @property
    def adam(self) -> optax.GradientTransformation:
        return ppo.adam(self.config.max_gradient)

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        nets = self.networks(key)
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(nets, self.adam.init(nets), jnp.ones(()), *counters)

    def params(self, state: State) -> Networks:
        return state.nets

    # ----------------------------------------------------------------------------------------- memory, acting

    def begin(self, params: Networks, key: Array, rows: tuple[int, int]) -> Memory:  # L2
        return recurrent.begin(self.spec, params.core, rows)

    def act(self, params: Networks, memory: Memory, obs: Array, key: Array, explore: bool):  # L3, L6
        seen = self.see(params, obs), self.see(params, memory.obs) if self.config.input_obs else None
        x = self.inputs(*seen, memory.action, memory.reward, memory.over, memory.begun)
        before = memory.state
        if self.config.memory_reset == "episode":
            before = params.core.kept(memory.begun > 0, before, params.core.begin(memory.begun.shape))
        state = params.core.once(x, before)
        h = params.core.output(state)
        actions = Actions(params.policy(h), params.log_std)
        action = actions.draw(key, explore)
        extras = {"log_prob": actions.log_prob(action), "value": params.value(h)[..., 0]}
        return action, extras, memory._replace(proposed=state)

    def observe(self, params: Networks, memory: Memory, transition: Transition) -> Memory:
        return recurrent.observe(self.spec, params.core, memory, transition)

    def adapt(self, params: Networks, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return memory

    def beliefs(self, params: Networks, memory: Memory) -> dict[str, Array]:
        """The core's output, for pictures: [N, width]. Of memories per action or pair the common part alone."""
        return {"memory": params.core.output(memory.state)[:, 0, -params.core.width :]}

    # -------------------------------------------------------------------------------------------- the sequence

    def see(self, nets: Networks, obs: Array) -> Array:
        """Features of images, and other observations as they are."""
        return obs if nets.eyes is None else nets.eyes(obs)

    def inputs(
        self, obs: Array, obs_before: Array | None, action: Array, reward: Array, over: Array, begun: Array
    ) -> Array:
        """What the core sees, [..., d]; all but obs are of the step before."""
        before = jnp.concatenate([action, reward[..., None], over[..., None]], axis=-1)
        if self.config.input_obs:
            before = jnp.concatenate([obs_before, before], axis=-1)
        if self.config.input_reset or self.config.memory_reset == "episode":  # what is fed is a memory, too
            before = before * begun[..., None]
        return jnp.concatenate([obs, before], axis=-1)

    def seen(self, t: Sequences, obs: Array, obs_before: Array | None) -> Array:
        """The same along trials [N, L, d]."""
        return self.inputs(obs, obs_before, t.action_before, t.reward_before, t.over_before, t.begun)

    def sweep(self, nets: Networks, trials: Sequences) -> tuple[Actions, Array]:
        """The core over whole trials -> distributions of actions [N, L] and values [N, L]."""
        t, c = trials, self.config
        now, before = self.see(nets, t.obs), t.obs_before
        if nets.eyes is not None and c.input_obs:  # an image is looked at once, not twice
            before = t.of_step_before(now, nets.eyes(jnp.zeros_like(t.obs[0, 0])))
        x = self.seen(t, now, before)
        fresh = t.begun == 0 if c.memory_reset == "episode" else t.first if c.pack_rows else None
        if c.core == "attention":
            h = nets.core(x, t.valid, fresh)
        else:
            h, _ = nets.core(x, nets.core.begin(x.shape[:1]), t.valid, fresh, c.truncate)
        flat = h.reshape(-1, h.shape[-1])
        raw = nets.policy(flat).reshape(*h.shape[:2], -1)
        return Actions(raw, nets.log_std), nets.value(flat).reshape(h.shape[:2])

    # ------------------------------------------------------------------------------------------------- update

    def targets(self, trials: Sequences, scale: Array, env_steps: Array) -> tuple[Array, Array]:  # L4
        """Advantages and returns [N, L]. Values, and so returns, are in units of sqrt(scale)."""
        c = self.config
        reward = jnp.where(trials.episode < c.free_episodes, 0.0, trials.train_reward) / jnp.sqrt(scale)
        value = trials.extras["value"]
        discount = ppo.rising(c.first_discount, c.discount, c.discount_env_steps, env_steps)
        of = partial(advantages, trials, reward, discount=discount, per_episode=c.advantages == "episode")
        if c.baseline == "linear":
            time = jnp.arange(value.shape[1]) % self.spec.horizon + jnp.zeros_like(value)
            value = baselines.linear(self.seen(trials, trials.obs, trials.obs_before), time,
                                     of(jnp.zeros_like(value), decay=1.0), trials.weight)  # fmt: skip
        found = of(value, decay=c.gae_decay)
        return found, found + value

    def objective(self, nets: Networks, batch: tuple[Sequences, Array, Array]) -> tuple[Array, dict[str, Array]]:
        """PPO's loss on a minibatch of trials, with their advantages and returns."""
        c, (trials, advantage, returns) = self.config, batch
        actions, value = self.sweep(nets, trials)
        new = actions.log_prob(trials.action), actions.entropy, value
        old = trials.extras["log_prob"], trials.extras["value"]
        loss = ppo.Objective(c.clip, 0.0, c.value_weight, c.entropy_weight).loss
        return loss(*new, *old, advantage, returns, trials.weight)

    def learn(self, state: State, data: Trajectory, key: Array) -> tuple[State, dict[str, Array]]:  # L5
        """All gradient steps on the trials [K, N, 1, T] of an iteration."""
        c, trials = self.config, sequences(data, self.spec)
        found, returns = self.targets(trials, state.scale, state.env_steps)
        # a linear baseline goes with advantages per task, as rllab and ProMP have them
        standardised = jax.vmap(ppo.standardised) if c.baseline == "linear" else ppo.standardised
        batch, held = (trials, standardised(found, trials.weight), returns), 1.0
        if c.pack_rows:
            batch, valid, held = packed(batch, trials.valid, c.pack_rows)
            batch = batch[0]._replace(valid=valid), *batch[1:]
        rate = ppo.falling(c.learning_rate, c.decay_env_steps, state.env_steps)
        nets, optimiser, metrics = ppo.train(self.objective, self.adam, state.nets, state.optimiser, batch, key, rate=rate,
                                             epochs=c.epochs, parts=c.updates_per_epoch)  # fmt: skip
        scale = ppo.followed(state.scale, returns, trials.weight, state.updates == 0)
        env_steps = state.env_steps + trials.valid.sum().astype(jnp.int32)
        metrics["learn/packed"] = jnp.asarray(held)
        metrics["value/explained"] = ppo.explained(found, returns, trials.weight)
        return State(nets, optimiser, scale, env_steps, state.updates + c.epochs * c.updates_per_epoch), metrics

    # --------------------------------------------------------------------------------------------- the schedule

    @property
    def iteration_env_steps(self) -> int:
        """At most, where no episode ends early."""
        return self.config.tasks_per_iteration * self.trial_episodes * self.spec.horizon

    def minimum_env_steps(self, env: Environment) -> int:
        return self.iteration_env_steps

    def check_family(self, env: Environment) -> None:
        require_regret(env, self.config.learn_from)

    def phase(self, state: State, env: Environment) -> str:
        return "iteration"

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key, learn_key = jax.random.split(key, 3)
        tasks = draw_tasks(env, c.tasks, task_key, c.tasks_per_iteration)
        data, metrics = collect(env, self, state.nets, tasks, trial_key, learn_from=c.learn_from)
        state, more = _learn(self, state, data, learn_key)
        return state, {**metrics, **more}


_learn = partial(jax.jit, static_argnums=0)(RL2.learn)
