"""A belief over the task, learnt by predicting it: the variational autoencoder of VariBAD (Zintgraf et al. 2020, section 3).

q(m | what was seen until t) is a Gaussian that a recurrent encoder gives after every env step of a trial. Decoders predict rewards
and next states of the whole trial, past and future, from a draw of it. Letters here: L env steps of a trial, t one of the L + 1
beliefs on its way (the first, of nothing seen, included), k a step that is decoded.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre import distributions, nn
from nacre.types import EnvSpec, Metric, Trajectory
from nacre.updates.trials import along, encoded, episode_ends

METRICS = {
    "belief/reward": Metric("nats or reward^2", "error of the predicted reward, per belief and decoded env step"),
    "belief/state": Metric("", "squared error of the predicted next observation, per belief, step and dimension"),
    "belief/task": Metric("", "squared error of the predicted task, per belief and task parameter"),
    "belief/kl": Metric("nats", "KL of a belief from the one before it"),
}


class Experience(NamedTuple):
    """Trials [B, L, ...] as encoder and decoders see them."""

    obs: Array
    action: Array  # one-hot where actions are discrete
    reward: Array
    next_obs: Array
    over: Array  # float: 1 at the last step of an episode
    valid: Array  # bool; a step that is not leaves the belief as it was
    task: Array  # [B, number of task parameters], read by the task decoder only


def experience(data: Trajectory, spec: EnvSpec, tasks: Any) -> Experience:
    """Of trials [K, B, 1, T]."""
    leaves = [jnp.asarray(x, jnp.float32).reshape(x.shape[0], -1) for x in jax.tree.leaves(tasks)]
    over = episode_ends(data).astype(jnp.float32)
    steps = (data.obs, encoded(spec, data.action), data.reward, data.next_obs, over, data.valid)
    return Experience(*map(along, steps), jnp.concatenate(leaves, axis=1))


class Encoder(eqx.Module):
    """Embeddings of action, observation and reward (a linear layer and a ReLU each; size 0: left out) -> GRU -> the Gaussian."""

    embed: tuple[nn.MLP | None, ...]
    core: nn.RecurrentCore
    head: nn.MLP

    def __init__(self, spec: EnvSpec, sizes: tuple[int, int, int], width: int, latent: int, *, key: Array):
        keys = jax.random.split(key, 5)
        inputs = spec.action.size, spec.obs_size + 1, 1
        self.embed = tuple(
            nn.MLP((n, size), key=k, out_scale=n**-0.5) if size else None
            for n, size, k in zip(inputs, sizes, keys[:3], strict=True)
        )
        self.core = nn.RecurrentCore(sum(sizes), width, key=keys[3])
        self.head = nn.MLP((width, 2 * latent), key=keys[4], out_scale=width**-0.5)

    def inputs(self, action: Array, next_obs: Array, over: Array, reward: Array) -> Array:
        """[..., d] of a step; actions one-hot where discrete."""
        seen = action, jnp.concatenate([next_obs, over[..., None]], axis=-1), reward[..., None]
        parts = [jax.nn.relu(net(x)) for net, x in zip(self.embed, seen, strict=True) if net is not None]
        return jnp.concatenate(parts, axis=-1)

    def belief(self, state: Array) -> Array:
        """[..., 2 * latent]: mean, log variance."""
        return self.head(state)

    def __call__(self, x: Experience, truncate: int = 0) -> Array:
        """Beliefs [B, L + 1, 2 * latent] before the first step and after every one."""
        start = jnp.zeros((x.obs.shape[0], self.core.width))
        inputs = self.inputs(x.action, x.next_obs, x.over, x.reward)
        states, _ = self.core(inputs, start, x.valid, truncate=truncate)
        return self.belief(jnp.concatenate([start[:, None], states], axis=1))


class Model(eqx.Module):
    """Encoder and decoders. A decoder that is not trained is None."""

    encoder: Encoder
    reward: nn.MLP | None
    state: nn.MLP | None
    task: nn.MLP | None


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound's parts and weights; see nacre.algorithms.varibad.Config for each."""

    spec: EnvSpec
    latent: int
    reward_model: Literal["gaussian", "bernoulli", "per_state"]
    weights: tuple[float, float, float]  # of predicted rewards, next states, task
    step_inputs: bool  # the reward decoder sees the observation and action before, besides the next observation
    kl_weight: float
    kl_prior: Literal["previous", "standard"]
    weighting: Literal["corrected", "official"]
    beliefs: int  # a random subset of a trial's beliefs; 0: all
    decodes: int  # a random subset of the steps that are decoded; 0: all
    truncate: int

    def model(
        self, sizes: tuple[int, int, int], width: int, hidden: tuple[tuple[int, ...], ...], tasks: int, key: Array
    ):
        """Fresh networks. hidden: layers of the decoders of reward, state, task; tasks: number of task parameters."""
        spec, keys = self.spec, jax.random.split(key, 4)
        step = spec.obs_size + spec.action.size
        inputs = spec.obs_size + step * self.step_inputs, step, 0
        outs = 1, spec.obs_size, tasks
        if self.reward_model == "per_state":
            inputs, outs = (0, step, 0), (len(spec.states), spec.obs_size, tasks)
        decoders = [
            nn.MLP((n + self.latent, *layers, out), key=k, out_scale=layers[-1] ** -0.5, hidden_bias=0.0)
            if weight
            else None
            for n, layers, out, weight, k in zip(inputs, hidden, outs, self.weights, keys[1:], strict=True)
        ]
        return Model(Encoder(spec, sizes, width, self.latent, key=keys[0]), *decoders)

    def loss(self, model: Model, x: Experience, key: Array) -> tuple[Array, dict[str, Array]]:
        """- ELBO of trials [B, L], summed over beliefs and decoded steps, mean over trials:

            sum_t ( sum_k -log p(r_k, s_k | m_t) + kl_weight KL(q_t || q_(t-1)) ),   m_t ~ q_t

        weighting=official does as the code does: where beliefs or decodes are subsets the sums are over these alone, and the KL
        and the task's error are summed over the trials of a batch, not averaged.
        """
        draw_key, belief_key, decode_key = jax.random.split(key, 3)
        mean, log_var = jnp.split(model.encoder(x, self.truncate), 2, axis=-1)  # [B, L + 1, latent]
        counts = jnp.pad(x.valid.astype(jnp.float32), ((0, 0), (1, 0)), constant_values=1.0)
        prior = mean, log_var  # before the first step: N(0, I) is the prior of the prior
        shift = [jnp.concatenate([jnp.zeros_like(p[:, :1]), p[:, :-1]], axis=1) for p in prior]
        if self.kl_prior == "standard":
            shift = [jnp.zeros_like(p) for p in prior]
        kl = distributions.kl_of_normals(mean, log_var, *shift)  # [B, L + 1]
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(draw_key, mean.shape)
        (z, kl), counts = chosen(belief_key, self.beliefs, (z, kl), counts)
        steps, decoded = chosen(decode_key, self.decodes, x._replace(task=x.reward), x.valid.astype(jnp.float32))
        if self.weighting == "official":  # each entry of a subset counts as itself, not for all that it stands for
            counts, decoded = ((v > 0).astype(jnp.float32) for v in (counts, decoded))
        pair = counts[:, :, None] * decoded[:, None]  # [B, t, k]
        errors, metrics = self.errors(model, z, steps, x.task, pair, counts)
        of_trials = 1.0 / x.reward.shape[0]
        of_beliefs = 1.0 if self.weighting == "official" else of_trials
        metrics["belief/kl"] = (kl * counts).sum() / counts.sum()
        return errors[0] * of_trials + (errors[1] + self.kl_weight * (kl * counts).sum()) * of_beliefs, metrics

    def errors(self, model: Model, z: Array, steps: Experience, task: Array, pair: Array, counts: Array):
        """(error over pairs of belief and step, error over beliefs), weighted sums over all trials, and their means."""
        of_pairs, of_beliefs, metrics = 0.0, 0.0, {}
        rewards, states, tasks = self.weights
        if rewards:
            error = (self.reward_errors(model, z, steps) * pair).sum()
            of_pairs, metrics["belief/reward"] = rewards * error, error / pair.sum()
        if states:
            found = model.state.pairs(jnp.concatenate([steps.obs, steps.action], axis=-1), z)
            error = (((found - steps.next_obs[:, None]) ** 2).mean(axis=-1) * pair).sum()
            of_pairs, metrics["belief/state"] = of_pairs + states * error, error / pair.sum()
        if tasks:
            error = (((model.task(z) - task[:, None]) ** 2).mean(axis=-1) * counts).sum()
            of_beliefs, metrics["belief/task"] = tasks * error, error / counts.sum()
        return (of_pairs, of_beliefs), metrics

    def reward_errors(self, model: Model, z: Array, steps: Experience) -> Array:
        """[B, t, k]: squared, or minus the log probability that the reward is positive, or is not."""
        if self.reward_model == "per_state":
            logit = model.reward(z) @ self.is_state(steps.next_obs).swapaxes(1, 2)
        else:
            x = [steps.next_obs, steps.obs, steps.action] if self.step_inputs else [steps.next_obs]
            logit = model.reward.pairs(jnp.concatenate(x, axis=-1), z)[..., 0]
        if self.reward_model == "gaussian":
            return (logit - steps.reward[:, None]) ** 2
        paid = (steps.reward > 0).astype(jnp.float32)[:, None]
        return jax.nn.softplus(logit) - paid * logit

    def is_state(self, obs: Array) -> Array:
        """obs [..., d] -> which of spec.states it is, one-hot [..., number of states]."""
        states = jnp.asarray(np.array(self.spec.states), jnp.float32)
        return (jnp.abs(obs[..., None, :] - states).max(axis=-1) < 1e-4).astype(jnp.float32)

    def pays(self, model: Model, belief: Array) -> Array:
        """Probability of a positive reward in each of spec.states, under the belief's mean [..., 2 * latent] -> [..., states]."""
        mean = belief[..., : self.latent]
        if self.reward_model == "per_state":
            return jax.nn.sigmoid(model.reward(mean))
        states = jnp.asarray(np.array(self.spec.states), jnp.float32)
        flat = mean.reshape(-1, 1, self.latent)
        logit = model.reward.pairs(jnp.broadcast_to(states, (len(flat), *states.shape)), flat)
        return jax.nn.sigmoid(logit[:, 0, :, 0]).reshape(*mean.shape[:-1], -1)


def chosen(key: Array, n: int, x: Any, valid: Array) -> tuple[Any, Array]:
    """n random ones of the valid entries, with replacement, along the time axis of leaves [B, L, ...]; n 0: all.

    valid [B, L] of zeros and ones. -> the entries [B, n, ...] and how many valid ones each stands for [B, n].
    """
    if not n or n >= valid.shape[1]:
        return x, valid
    there = valid.sum(axis=1, keepdims=True)  # [B, 1]
    number = jnp.minimum(jnp.floor(jax.random.uniform(key, (valid.shape[0], n)) * there), there - 1)
    place = jax.vmap(partial(jnp.searchsorted, side="right", method="compare_all"))
    at = place(jnp.cumsum(valid, axis=1), number)
    picked = jax.tree.map(lambda v: jnp.take_along_axis(v, at.reshape(*at.shape, *(1,) * (v.ndim - 2)), axis=1), x)
    return picked, jnp.broadcast_to(there / n, at.shape)
