"""VariBAD: Zintgraf et al. 2020 (arXiv:1910.08348), official code github.com/lmzintgraf/varibad.

  L1   while not done:
  L2     draw N tasks; for each a trial: K episodes, one after another, from the belief q(m | nothing) of a zero state
  L3       at every env step: a ~ pi(a | s, q_t);  q_(t+1) <- encoder(a, s', r): mean and log variance of a Gaussian over m
  L4     keep the trials in the buffer of the belief's model
  L5     advantages over the whole trial; some epochs, minibatches of trials: PPO step on pi and V, the belief taken as given
  L6     a few times: trials from the buffer; gradient step on the belief's model by its evidence lower bound (nacre.updates.elbo)
  L7   meta-test: act as in L3

With a task decoder (task_weight > 0) the belief is also taught to tell the task itself, which is known in training: the supervised
belief of "Meta reinforcement learning as task inference" (Humplik et al. 2019, arXiv:1905.06424); reward_weight and state_weight 0
leave only that. What differs from the official code: docs/algorithms/varibad.md.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from nacre import nn
from nacre._checks import require
from nacre.distributions import Actions
from nacre.types import Environment, EnvSpec, Trajectory, Transition, take_tasks
from nacre.updates import elbo, ppo
from nacre.updates.elbo import Elbo, Experience, Model
from nacre.updates.trials import METRICS, Sequences, advantages, collect, draw_tasks, encoded, require_regret, sequences


@dataclass(frozen=True)
class Config:
    """Bare defaults are the paper's for cheetah-dir (official config/mujoco/args_cheetah_dir_varibad.py)."""

    latent_size: int = 5  # dimensions of m
    width: int = 128  # units of the encoder's GRU
    embeddings: tuple[int, int, int] = (16, 32, 16)  # of action, observation and reward; 0: not seen by the encoder
    hidden: tuple[int, ...] = (128, 128)  # tanh layers of policy and value
    policy_embeddings: tuple[int, int] = (64, 64)  # of observation and belief
    reward_hidden: tuple[int, ...] = (64, 32)  # layers of the reward decoder
    state_hidden: tuple[int, ...] = (64, 32)
    task_hidden: tuple[int, ...] = (64, 32)
    reward_weight: float = 1.0  # of predicted rewards in the belief's loss; 0: no such decoder
    state_weight: float = 0.0  # of predicted next observations
    task_weight: float = 0.0  # of the predicted task, which is known in training (Humplik et al. 2019)
    reward_model: Literal["gaussian", "bernoulli", "per_state"] = (
        "gaussian"  # bernoulli: positive or not; per_state: the same, an output for each of a family's few observations
    )
    step_inputs: bool = True  # the reward decoder sees the observation and action before, too
    kl_weight: float = 0.1
    kl_prior: Literal["previous", "standard"] = "previous"  # the belief a step before, or N(0, I)
    elbo_weighting: Literal["corrected", "official"] = (
        "official"  # corrected: an unbiased estimate of the mean over trials
    )
    elbo_beliefs: int = 50  # of each trial, drawn anew, from which its steps are predicted; 0: all
    elbo_decodes: int = 50  # of each trial's steps, drawn anew, that are predicted; 0: all
    belief_trials: int = 10  # per gradient step on the belief's model
    belief_updates: int = 1  # gradient steps on the belief's model per iteration
    belief_learning_rate: float = 1e-3  # Adam
    belief_max_gradient: float = 1.0  # gradients of a larger norm are scaled down to it; 0: never
    belief_capacity: int = 10_000  # trials that are kept
    truncate: int = 50  # the belief's gradients reach back at most about so many env steps; 0: over the whole trial
    initial_env_steps: int = 5000  # before the first gradient step
    policy_trains_encoder: bool = False  # PPO's gradient goes through the belief, too
    normalise_obs: bool = True  # what the policy sees
    normalise_belief: bool = True
    episodes: int = 0  # of a trial in training; 0: the family's
    tasks: Literal["fresh", "fixed"] = "fresh"  # fresh: drawn from the family's distribution; fixed: its training tasks
    learn_from: Literal["reward", "regret"] = "reward"  # regret: of each action, which families know in training
    advantages: Literal["trial", "episode"] = "trial"  # trial: credit crosses episodes
    tasks_per_iteration: int = 32  # two trials for each of the official code's 16 processes
    updates_per_epoch: int = 4  # minibatches
    epochs: int = 16
    learning_rate: float = 7e-4  # Adam, policy and value
    decay_env_steps: int = 0  # both learning rates fall linearly to a twentieth by this env step; 0: constant
    max_gradient: float = 0.5
    discount: float = 0.97
    gae_decay: float = 0.9  # lambda
    clip: float = 0.1  # of PPO's ratio
    value_clip: float = 0.1  # of the value's move from the old one, in units of the returns' size; 0: none
    value_weight: float = 0.125  # the official 0.5, of a squared error that is halved twice there
    huber: bool = True  # the value's error counts linearly beyond 1
    entropy_weight: float = 0.01
    initial_std: float = 1.0  # of continuous actions, in their range of [-1, 1]

    def __post_init__(self):
        require(
            self,
            positive="latent_size width belief_trials belief_learning_rate belief_capacity tasks_per_iteration "
                     "updates_per_epoch epochs learning_rate clip initial_std",
            not_negative="reward_weight state_weight task_weight kl_weight elbo_beliefs elbo_decodes belief_updates "
                         "belief_max_gradient truncate initial_env_steps episodes decay_env_steps max_gradient value_clip "
                         "value_weight entropy_weight",
            fraction="discount gae_decay",
            layers="hidden reward_hidden state_hidden task_hidden",
        )  # fmt: skip
        if min(self.embeddings) < 0 or not sum(self.embeddings) or min(self.policy_embeddings) < 1:
            raise ValueError(
                f"embeddings must not be negative and not all 0, policy_embeddings at least 1, got {self.embeddings} and "
                f"{self.policy_embeddings}"
            )
        if not (self.reward_weight or self.state_weight or self.task_weight):
            raise ValueError("reward_weight, state_weight and task_weight are all 0: the belief would learn nothing")
        if self.belief_capacity < self.tasks_per_iteration:
            raise ValueError(
                f"belief_capacity ({self.belief_capacity}) must have room for the trials of an iteration, tasks_per_iteration "
                f"({self.tasks_per_iteration})"
            )
        if self.tasks_per_iteration % self.updates_per_epoch:
            raise ValueError(
                f"updates_per_epoch ({self.updates_per_epoch}) must divide tasks_per_iteration ({self.tasks_per_iteration}): "
                "minibatches are whole trials"
            )


# ------------------------------------------------------------------------------------------------------ networks


class Head(eqx.Module):
    """Policy or value: embeddings of observation and belief, then tanh layers."""

    obs: nn.MLP
    belief: nn.MLP
    net: nn.MLP

    def __init__(self, c: Config, obs_size: int, out: int, *, key: Array):
        keys, sizes = jax.random.split(key, 3), c.policy_embeddings
        self.obs = nn.MLP((obs_size, sizes[0]), key=keys[0], out_scale=obs_size**-0.5)
        self.belief = nn.MLP((2 * c.latent_size, sizes[1]), key=keys[1], out_scale=(2 * c.latent_size) ** -0.5)
        self.net = nn.MLP((sum(sizes), *c.hidden, out), key=keys[2], hidden_bias=0.0, tanh=True)

    def __call__(self, obs: Array, belief: Array) -> Array:
        return self.net(jnp.tanh(jnp.concatenate([self.obs(obs), self.belief(belief)], axis=-1)))


class Actor(eqx.Module):
    """What PPO trains."""

    policy: Head
    value: Head
    log_std: Array | None  # of continuous actions, [A]


class Params(eqx.Module):
    """What acting needs."""

    actor: Actor
    model: Model
    obs_scale: nn.Normaliser | None
    belief_scale: nn.Normaliser | None


class Buffer(eqx.Module):
    """The last trials, a ring."""

    trials: Experience  # [capacity, L, ...]
    added: Array  # ever


class State(eqx.Module):
    """All that training changes."""

    params: Params
    optimiser: Any
    belief_optimiser: Any
    buffer: Buffer
    scale: Array  # running mean square of discounted returns, by which values are scaled
    env_steps: Array  # counters, int32
    updates: Array  # gradient steps, PPO's and the belief's


class Memory(NamedTuple):
    """What an agent carries through a trial, leading axes [N, E]."""

    state: Array  # [N, E, width] of the encoder
    over: Array  # [N, E] 1 if the step before was the last of an episode


class VariBADBatch(NamedTuple):
    """What a PPO step sees of its trials."""

    trials: Sequences
    experience: Experience
    advantage: Array
    returns: Array


@dataclass(frozen=True)
class VariBAD:
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("params", "scale")
    metrics_help = {  # noqa: RUF012  read only
        **ppo.METRICS,
        **elbo.METRICS,
        **METRICS,
    }

    def __post_init__(self):
        if self.config.reward_model == "per_state" and self.config.reward_weight and not self.spec.states:
            raise ValueError(f"reward_model=per_state: the observations of {self.spec.name} are not a short list; use "
                             "bernoulli or gaussian")  # fmt: skip

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def trial_episodes(self) -> int:
        return self.config.episodes or self.spec.trial_episodes

    @property
    def iteration_env_steps(self) -> int:
        """At most, where no episode ends early."""
        return self.config.tasks_per_iteration * self.trial_episodes * self.spec.horizon

    @property
    def elbo(self) -> Elbo:
        c = self.config
        weights = c.reward_weight, c.state_weight, c.task_weight
        return Elbo(
            self.spec, c.latent_size, c.reward_model, weights, c.step_inputs, c.kl_weight, c.kl_prior, c.elbo_weighting,
            c.elbo_beliefs, c.elbo_decodes, c.truncate,
        )  # fmt: skip

    def networks(self, key: Array, task_size: int) -> tuple[Actor, Model]:
        c, spec = self.config, self.spec
        policy_key, value_key, model_key = jax.random.split(key, 3)
        policy = Head(c, spec.obs_size + 1, spec.action.size, key=policy_key)
        value = Head(c, spec.obs_size + 1, 1, key=value_key)
        log_std = None if spec.discrete else jnp.full(spec.action.size, math.log(c.initial_std), jnp.float32)
        hidden = c.reward_hidden, c.state_hidden, c.task_hidden
        return Actor(policy, value, log_std), self.elbo.model(c.embeddings, c.width, hidden, task_size, model_key)

    @property
    def adam(self) -> optax.GradientTransformation:
        return ppo.adam(self.config.max_gradient)

    @property
    def belief_adam(self) -> optax.GradientTransformation:
        return ppo.adam(self.config.belief_max_gradient)

    def trained(self, params: Params) -> Any:
        """What PPO's gradient may change."""
        return params.actor, params.model.encoder if self.config.policy_trains_encoder else None

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        c, spec = self.config, self.spec
        task_size = sum(math.prod(np.shape(x)[1:]) for x in jax.tree.leaves(env.train_tasks))
        actor, model = self.networks(key, task_size)
        obs_scale = nn.Normaliser(spec.obs_size) if c.normalise_obs else None
        params = Params(actor, model, obs_scale, nn.Normaliser(2 * c.latent_size) if c.normalise_belief else None)
        room = c.belief_capacity, self.trial_episodes * spec.horizon
        sizes = spec.obs_size, spec.action.size, None, spec.obs_size, None
        steps = [jnp.zeros(room if size is None else (*room, size)) for size in sizes]
        trials = Experience(*steps, jnp.zeros(room, bool), jnp.zeros((c.belief_capacity, task_size)))
        counters = (jnp.zeros((), jnp.int32) for _ in range(3))
        return State(
            params, self.adam.init(self.trained(params)), self.belief_adam.init(model), Buffer(trials, next(counters)),
            jnp.ones(()), *counters,
        )  # fmt: skip

    def params(self, state: State) -> Params:
        return state.params

    # ----------------------------------------------------------------------------------------- memory, acting

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:  # L2
        return Memory(jnp.zeros((*rows, self.config.width)), jnp.zeros(rows))

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):  # L3, L7
        belief = params.model.encoder.belief(memory.state)
        actions, value = self.judge(params, params.actor, obs, memory.over, belief)
        action = actions.draw(key, explore)
        extras = {"log_prob": actions.log_prob(action), "value": value, "belief": belief}
        if self.knows_where and not explore:  # for pictures of a meta-test
            extras["belief/pays"] = self.elbo.pays(params.model, belief)
        return action, extras, memory

    def observe(self, params: Params, memory: Memory, transition: Transition) -> Memory:
        """The belief after a step; rows that were over keep theirs."""
        t, encoder = transition, params.model.encoder
        over = (t.terminal | t.truncated).astype(jnp.float32)
        x = encoder.inputs(encoded(self.spec, t.action), t.next_obs, over, t.reward)
        state = jnp.where(t.valid[..., None], encoder.core.once(x, memory.state), memory.state)
        return Memory(state, jnp.where(t.valid, over, memory.over))

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return memory

    def beliefs(self, params: Params, memory: Memory) -> dict[str, Array]:
        """mean and variance of q(m), [N, latent]; of families with few observations: the chance of a reward at each."""
        belief = params.model.encoder.belief(memory.state[:, 0])
        mean, log_var = jnp.split(belief, 2, axis=-1)
        found = {"mean": mean, "variance": jnp.exp(log_var)}
        return found | ({"pays": self.elbo.pays(params.model, belief)} if self.knows_where else {})

    @property
    def knows_where(self) -> bool:
        """Whether the reward decoder can be asked about every observation there is."""
        c = self.config
        return bool(self.spec.states and c.reward_weight and c.reward_model != "gaussian" and
                    (c.reward_model == "per_state" or not c.step_inputs))  # fmt: skip

    def judge(self, params: Params, actor: Actor, obs: Array, over: Array, belief: Array) -> tuple[Actions, Array]:
        """Distributions of actions [...] and values [...] for observations, ends of episodes before, and beliefs."""
        if params.obs_scale is not None:
            obs = params.obs_scale(obs)
        if params.belief_scale is not None:
            belief = params.belief_scale(belief)
        seen = jnp.concatenate([obs, over[..., None]], axis=-1)
        return Actions(actor.policy(seen, belief), actor.log_std), actor.value(seen, belief)[..., 0]

    # ------------------------------------------------------------------------------------------------- update

    def objective(self, params: Params, trained: Any, batch: VariBADBatch) -> tuple[Array, dict[str, Array]]:
        """PPO's loss on a minibatch of trials."""
        c, trials = self.config, batch.trials
        actor, encoder = trained
        belief = trials.extras["belief"] if encoder is None else encoder(batch.experience, c.truncate)[:, :-1]
        actions, value = self.judge(params, actor, trials.obs, trials.over_before, belief)
        new = actions.log_prob(trials.action), actions.entropy, value
        old = trials.extras["log_prob"], trials.extras["value"]
        loss = ppo.Objective(c.clip, c.value_clip, c.value_weight, c.entropy_weight, c.huber).loss
        return loss(*new, *old, batch.advantage, batch.returns, trials.weight)

    def improve(
        self, state: State, trials: Sequences, new: Experience, key: Array
    ) -> tuple[State, dict[str, Array]]:  # L5
        """PPO on an iteration's trials [N, L]."""
        c, params, weight = self.config, state.params, trials.weight
        reward, value = trials.train_reward / jnp.sqrt(state.scale), trials.extras["value"]
        found = advantages(trials, reward, value, c.discount, c.gae_decay, c.advantages == "episode")
        batch = VariBADBatch(trials, new, ppo.standardised(found, weight), found + value)
        (actor, encoder), optimiser, metrics = ppo.train(
            partial(self.objective, params), self.adam, self.trained(params), state.optimiser, batch, key,
            rate=ppo.falling(c.learning_rate, c.decay_env_steps, state.env_steps), epochs=c.epochs,
            parts=c.updates_per_epoch,
        )  # fmt: skip
        metrics["value/explained"] = ppo.explained(found, batch.returns, weight)
        scale = ppo.followed(state.scale, batch.returns, weight, state.updates == 0)
        model = params.model if encoder is None else eqx.tree_at(lambda m: m.encoder, params.model, encoder)
        scales = [
            None if x is None else x.include(y, trials.valid)
            for x, y in ((params.obs_scale, trials.obs), (params.belief_scale, trials.extras["belief"]))
        ]
        updates = state.updates + c.epochs * c.updates_per_epoch
        changed = Params(actor, model, *scales), optimiser, scale, updates
        return eqx.tree_at(lambda s: (s.params, s.optimiser, s.scale, s.updates), state, changed), metrics

    def infer(self, state: State, key: Array) -> tuple[State, dict[str, Array]]:  # L6
        """Gradient steps on the belief's model, with trials from the buffer."""
        c, buffer = self.config, state.buffer
        gradient = eqx.filter_value_and_grad(self.elbo.loss, has_aux=True)

        def step(carry, key):
            model, optimiser = carry
            trial_key, loss_key = jax.random.split(key)
            rows = jax.random.randint(trial_key, (c.belief_trials,), 0, jnp.minimum(buffer.added, c.belief_capacity))
            (_, metrics), grads = gradient(model, take_tasks(buffer.trials, rows), loss_key)
            change, optimiser = self.belief_adam.update(grads, optimiser, model)
            return (ppo.moved(model, change, rate), optimiser), metrics

        rate = ppo.falling(c.belief_learning_rate, c.decay_env_steps, state.env_steps)
        carry = state.params.model, state.belief_optimiser
        (model, optimiser), metrics = jax.lax.scan(step, carry, jax.random.split(key, c.belief_updates))
        parts = model, optimiser, state.updates + c.belief_updates
        state = eqx.tree_at(lambda s: (s.params.model, s.belief_optimiser, s.updates), state, parts)
        return state, jax.tree.map(lambda x: x.mean(), metrics)

    def learn(self, state: State, data: Trajectory, tasks: Any, key: Array, initial: bool):
        """All that an iteration learns from its trials [K, N, 1, T]."""
        policy_key, belief_key = jax.random.split(key)
        trials, new = sequences(data, self.spec), elbo.experience(data, self.spec, tasks)
        added = state.env_steps + trials.valid.sum().astype(jnp.int32)
        state = eqx.tree_at(lambda s: (s.buffer, s.env_steps), state, (self.store(state.buffer, new), added))  # L4
        if initial:
            return state, {}
        state, metrics = self.improve(state, trials, new, policy_key)
        state, more = self.infer(state, belief_key)
        return state, {**metrics, **more}

    def store(self, buffer: Buffer, new: Experience) -> Buffer:
        n, capacity = new.reward.shape[0], self.config.belief_capacity
        at = (buffer.added + jnp.arange(n)) % capacity
        trials = jax.tree.map(lambda old, x: old.at[at].set(x), buffer.trials, new)
        return Buffer(trials, buffer.added + n)

    # --------------------------------------------------------------------------------------------- the schedule

    def minimum_env_steps(self, env: Environment) -> int:
        return (-(-self.config.initial_env_steps // self.iteration_env_steps) + 1) * self.iteration_env_steps

    def check_family(self, env: Environment) -> None:
        require_regret(env, self.config.learn_from)

    def phase(self, state: State, env: Environment) -> str:
        return "initial" if int(jnp.max(state.env_steps)) < self.config.initial_env_steps else "iteration"

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key, learn_key = jax.random.split(key, 3)
        tasks = draw_tasks(env, c.tasks, task_key, c.tasks_per_iteration)
        data, metrics = collect(env, self, state.params, tasks, trial_key, learn_from=c.learn_from)
        state, more = _learn(self, state, data, tasks, learn_key, phase == "initial")
        return state, {**metrics, **more}


_learn = partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)(VariBAD.learn)
