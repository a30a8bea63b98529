"""What agents share that learn in a recurrent state: the memory of a trial, and what is seen of the step before."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from nacre.types import EnvSpec, Transition
from nacre.updates.trials import encoded


class Memory(NamedTuple):
    """What an agent carries through a trial, leading axes [N, E]."""

    state: Any  # of the core, after the last env step that counted
    proposed: Any  # the same after the one being made, until it counts
    obs: Array  # [N, E, obs size] before
    action: Array  # [N, E, A] before; one-hot where actions are discrete
    reward: Array  # [N, E] before
    over: Array  # [N, E] 1 if that was the last step of an episode
    begun: Array  # [N, E] 0 at the first step of an episode


def begin(spec: EnvSpec, core: Any, rows: tuple[int, int]) -> Memory:
    """Nothing was seen."""
    zeros, state = jnp.zeros(rows), core.begin(rows)
    obs, action = (jnp.zeros((*rows, size)) for size in (spec.obs_size, spec.action.size))
    return Memory(state, state, obs, action, zeros, zeros, zeros)


def observe(spec: EnvSpec, core: Any, memory: Memory, transition: Transition) -> Memory:
    """Take over what the step that was made says; rows that were over keep their memory."""
    t = transition
    over = (t.terminal | t.truncated).astype(jnp.float32)
    state = core.kept(t.valid, memory.proposed, memory.state)
    new = t.obs, encoded(spec, t.action), t.reward, over, 1.0 - over

    def pick(new, old):
        return jnp.where(t.valid.reshape(t.valid.shape + (1,) * (new.ndim - 2)), new, old)

    return Memory(state, state, *map(pick, new, memory[2:]))
