"""Off-policy learners of a single task behind one face: DDPG, TD3 and SAC. What they know is a value (`Learning`), so a step that
is only tried leaves nothing behind."""

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import distributions, nn, replay
from nacre.replay import Batch, Replay
from nacre.types import EnvSpec, Metric
from nacre.updates import ddpg, sac

Kind = Literal["ddpg", "td3", "sac"]
SMOOTHING, DELAY = 0.2, 2  # of TD3 (Fujimoto et al. 2018, table 3)
METRICS = {
    name: sac.METRICS[name]
    for name in ("loss/critic", "loss/policy", "loss/value", "q/mean", "q/target", "v/mean", "policy/entropy")
} | {"policy/temperature": Metric("", "alpha of a SAC student")}  # fmt: skip


class Learning(eqx.Module):
    """All that a student's gradient steps change."""

    nets: ddpg.Networks | sac.Networks
    optimisers: dict[str, Any]  # Adam states
    steps: Array  # gradient steps, int32


@dataclass(frozen=True)
class Student:
    """A learner with its coefficients."""

    kind: Kind
    spec: EnvSpec
    hidden: tuple[int, ...]
    norm: bool  # layer normalisation: in all networks of DDPG and TD3, in the critics of SAC
    policy_rate: float  # Adam
    critic_rate: float
    discount: float
    target_rate: float
    reward_scale: float
    batch_size: int
    temperature: float  # of SAC, where it starts

    @property
    def learner(self) -> ddpg.Learner | sac.Learner:
        common = self.discount, self.target_rate, self.reward_scale
        if self.kind == "sac":
            return sac.Learner(*common, 0.0, 0.0, True, -float(self.spec.action.size))
        return ddpg.Learner(*common, smoothing=SMOOTHING, delay=DELAY) if self.kind == "td3" else ddpg.Learner(*common)

    def adam(self, name: str) -> optax.GradientTransformation:
        return optax.adam(self.critic_rate if name == "critics" else self.policy_rate)

    def begin(self, key: Array) -> Learning:
        if self.kind == "sac":
            keys = list(jax.random.split(key, 4))
            nets = sac.networks(keys, self.spec, 0, self.hidden, "twin", self.temperature, self.norm)
        else:
            keys = list(jax.random.split(key, 3 if self.kind == "td3" else 2))
            nets = ddpg.networks(keys, self.spec, self.hidden, self.norm)
        names = ("critics", "policy") + (("log_alpha",) if self.kind == "sac" else ())
        optimisers = {name: self.adam(name).init(getattr(nets, name)) for name in names}
        return Learning(nets, optimisers, jnp.zeros((), jnp.int32))

    # ---------------------------------------------------------------------------------------------------- acting

    def best(self, policy: Any, obs: Array) -> Array:
        """The deterministic action, [..., A] in [-1, 1]."""
        return jnp.tanh(policy(obs)[0]) if self.kind == "sac" else ddpg.act(policy, obs)

    def draw(self, policy: nn.GaussianPolicy, obs: Array, noise: Array) -> Array:
        """An action of SAC's stochastic policy; noise: standard normals [..., A]."""
        return distributions.tanh_normal(*policy(obs), noise)[0]

    # -------------------------------------------------------------------------------------------------- learning

    def step(self, now: Learning, batch: Batch, noise: Array) -> tuple[Learning, dict[str, Array]]:
        """One gradient step; noise: two standard normals [2, rows, A], of which DDPG uses none and TD3 the first."""
        optimisers = dict(now.optimisers)

        def descend(name, gradient, params):
            change, optimisers[name] = self.adam(name).update(gradient, optimisers[name], params)
            return optax.apply_updates(params, change)

        if self.kind == "sac":
            nets, metrics = self._sac_step(now.nets, batch, noise, descend)
        else:
            nets, metrics = self.learner.improve(now.nets, batch, noise[0], descend)
            due = (now.steps + 1) % self.learner.delay == 0  # else the critics' step alone counts
            kept = ddpg.Networks(now.nets.policy, nets.critics, now.nets.target_policy, now.nets.target_critics)
            optimisers["policy"] = _where(due, optimisers["policy"], now.optimisers["policy"])
            nets = _where(due, nets, kept)
        return Learning(nets, optimisers, now.steps + 1), metrics

    def _sac_step(self, nets: sac.Networks, batch: Batch, noise: Array, descend) -> tuple[sac.Networks, dict]:
        nothing = jnp.zeros((1, 0))  # there is no latent
        target = jax.lax.stop_gradient(self.learner.bellman_target(nets, batch, nothing, noise[0]))
        grad = eqx.filter_value_and_grad(sac.critic_loss, has_aux=True)
        (loss, q), g_critics = grad(nets.critics, batch, nothing, target, False)
        critics = descend("critics", g_critics, nets.critics)
        nets, metrics = self.learner.improve(nets, critics, batch, nothing, noise[1], descend)
        return nets, {**metrics, "loss/critic": loss, "q/mean": q.mean(), "q/target": target.mean()}

    def learn(
        self, now: Learning, store: Replay, key: Array, steps: int, beside: Replay | None = None
    ) -> tuple[Learning, dict[str, Array]]:
        """`steps` gradient steps on batches of the (only) task's transitions; metrics are means over them. beside: every other
        transition comes from there, unless it is empty."""
        task = jnp.zeros(1, jnp.int32)

        def one(now: Learning, k: Array):
            batch_key, beside_key, noise_key = jax.random.split(jax.random.fold_in(key, k), 3)
            batch = replay.sample(store, batch_key, task, self.batch_size)
            if beside is not None:
                other = (jnp.arange(self.batch_size) % 2 == 1) & (beside.total[0] > 0)
                more = replay.sample(beside, beside_key, task, self.batch_size)
                batch = jax.tree.map(
                    lambda x, y: jnp.where(other.reshape(1, -1, *[1] * (x.ndim - 2)), y, x), batch, more
                )
            batch = jax.tree.map(lambda x: x[0], batch)
            noise = jax.random.normal(noise_key, (2, self.batch_size, self.spec.action.size))
            return self.step(now, batch, noise)

        now, metrics = jax.lax.scan(one, now, jnp.arange(steps))
        return now, jax.tree.map(lambda x: x.mean(axis=0), metrics)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
