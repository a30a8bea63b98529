"""An algorithm of one's own, as a change to one of Nacre's: PEARL that acts on the mean of its belief instead of a draw from it.

    nacre train examples/pearl_mean.py:MeanPEARL sparse-point-robot

It trains as PEARL does, with PEARL's presets, and explores worse where a task must be searched for: a mean goes to the same place
in every episode. `--until 5` draws in the first five episodes of a trial, and acts on the mean afterwards.
"""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp

from nacre.algorithms.pearl import PEARL, Config


@dataclass(frozen=True)
class MeanConfig(Config):
    """PEARL's settings, and:"""

    until: int = 0  # episodes of a trial that act on a draw, as PEARL's do


@dataclass(frozen=True)
class MeanPEARL(PEARL):
    """What changes is what a trial acts on."""

    config: MeanConfig

    def adapt(self, params, memory, episodes, key):
        memory = super().adapt(params, memory, episodes, key)  # which draws z [N, E, latent]
        mean = jnp.broadcast_to(self.belief.posterior(memory).mean[:, None], memory.z.shape)
        decided = memory.episodes >= self.config.until  # [N]
        return dataclasses.replace(memory, z=jnp.where(decided[:, None, None], mean, memory.z))
