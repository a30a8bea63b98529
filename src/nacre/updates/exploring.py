"""What a learnt explorer is, for a single student: whom it imitates, noise that lasts, and the scale of what it is paid with."""

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn
from nacre.types import Environment, EnvSpec, Metric

STD_RANGE = 0.02, 2.0  # within which an explorer's standard deviations are held, in the agent's units
METRICS = {
    "collect/return": Metric("reward", "mean return of episodes with the student's own noise, or random actions"),
    "collect/return_teacher": Metric("reward", "mean return of D0, over teacher_steps"),
    "collect/return_student": Metric("reward", "of pi, over student_steps"),
    "collect/return_trial": Metric("reward", "of pi', over student_steps"),
    "meta/reward": Metric("reward", "return of pi' minus return of pi"),
    "meta/advantage": Metric("", "that, less its running mean, in units of its running deviation"),
    "teacher/std": Metric("", "geometric mean of the teacher's standard deviations, in the agent's units"),
    "teacher/apart": Metric("", "mean distance of the teacher's mean action from the student's, per dimension, on D0"),
    "gradient/teacher": Metric("", "norm of the teacher's gradient"),
    "trial/moved": Metric("", "distance of the parameters of pi' from those of pi"),
}


class Explorer(eqx.Module):
    """A Normal around tanh(net(s)), or around what the student would do."""

    net: nn.MLP | None
    log_std: Array  # [A]

    def mean(self, imitated: Array, obs: Array) -> Array:
        """[..., A]; imitated: the student's action there, a constant."""
        return jax.lax.stop_gradient(imitated) if self.net is None else jnp.tanh(self.net(obs))

    def held(self) -> "Explorer":
        """With its standard deviations in their range."""
        return eqx.tree_at(lambda e: e.log_std, self, jnp.clip(self.log_std, *map(jnp.log, STD_RANGE)))


class Noise(eqx.Module):
    """Of an agent that does not adapt: the noise that lasts."""

    now: Array  # [N, E, A]

    def drawn(self, normal: Array, std: float, pull: float) -> "Noise":
        """Ornstein-Uhlenbeck: of the noise before, the share `pull` is forgotten; `std` in the long run. pull 1: white noise."""
        kept = 1.0 - pull
        return Noise(kept * self.now + (1.0 - kept**2) ** 0.5 * std * normal)


class Scale(eqx.Module):
    """Running mean and deviation of rewards, of which the newest has at least a given share. One reward has no deviation."""

    count: Array
    mean: Array
    square: Array  # mean squared deviation from the mean

    def include(self, reward: Array, share: float) -> "Scale":
        share = jnp.maximum(share, 1.0 / (self.count + 1.0))
        off = reward - self.mean
        # off is from the mean before: of its square, the new mean leaves (1 - share) (Welford 1962, with shares)
        return Scale(self.count + 1.0, self.mean + share * off, (1.0 - share) * (self.square + share * off**2))


@dataclass(frozen=True)
class Shortened:
    """A family whose episodes are cut after `horizon` env steps, which is a time limit like any other."""

    env: Environment
    horizon: int

    @property
    def spec(self) -> EnvSpec:
        return replace(self.env.spec, horizon=self.horizon)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)
