"""What agents share that learn in a recurrent state: the memory of a trial, and what is seen of the step before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nacre.types import EnvSpec, Transition
from nacre.updates.trials import encoded


class Memory(NamedTuple):
    """What an agent carries through a trial, leading axes [N, E]."""

    state: Array  # [N, E, state size] of the core, after the last env step that counted
    proposed: Array  # the same after the one being made, until it counts
    action: Array  # [N, E, A] before; one-hot where actions are discrete
    reward: Array  # [N, E] before
    over: Array  # [N, E] 1 if that was the last step of an episode
    begun: Array  # [N, E] 0 at the first step of an episode


def begin(spec: EnvSpec, rows: tuple[int, int], state_size: int) -> Memory:
    """Nothing was seen."""
    zeros, state = jnp.zeros(rows), jnp.zeros((*rows, state_size))
    return Memory(state, state, jnp.zeros((*rows, spec.action.size)), zeros, zeros, zeros)


def observe(spec: EnvSpec, memory: Memory, transition: Transition) -> Memory:
    """Take over what the step that was made says; rows that were over keep their memory."""
    action = encoded(spec, transition.action)
    over = (transition.terminal | transition.truncated).astype(jnp.float32)
    new = Memory(memory.proposed, memory.proposed, action, transition.reward, over, 1.0 - over)

    def pick(new, old):
        return jnp.where(transition.valid.reshape(transition.valid.shape + (1,) * (new.ndim - 2)), new, old)

    return jax.tree.map(pick, new, memory._replace(proposed=memory.state))
