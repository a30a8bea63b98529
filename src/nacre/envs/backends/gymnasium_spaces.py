"""What a gymnasium environment's spaces mean to Nacre: flat float32 observations, Box or Discrete actions."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from nacre.types import Box, Discrete, EnvSpec

OBSERVATIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def describe(name: str, env: gymnasium.Env, horizon: int | None) -> EnvSpec:
    """The spec, or an error that names what is not supported."""
    space = env.observation_space
    unsupported = unsupported_leaf(space)
    if unsupported is not None:
        raise ValueError(
            f"{name}: observation space {unsupported} is not supported; expected Box, Discrete, MultiDiscrete, "
            "MultiBinary, or Dict or Tuple of these; wrap the environment with gymnasium.wrappers.TransformObservation"
        )
    limit = horizon if horizon is not None else time_limit(env)
    if limit is None:
        raise ValueError(
            f"{name}: the environment has no time limit; pass horizon=<env steps per episode>, or wrap it with "
            "gymnasium.wrappers.TimeLimit"
        )
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        raise ValueError(f"{name}: horizon must be a whole number of env steps, at least 1, got {limit!r}")
    return EnvSpec(
        name=name,
        obs_size=spaces.flatdim(space),
        action=action_spec(name, env.action_space),
        horizon=int(limit),
        jittable=False,
        can_terminate=True,  # or cut short by the environment's own time limit
        reward_note="the environment's own",
    )


def unsupported_leaf(space: spaces.Space) -> spaces.Space | None:
    """The first part of the space that cannot be flattened, or None."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return next((bad for bad in map(unsupported_leaf, parts) if bad is not None), None)
    return None if isinstance(space, OBSERVATIONS) else space


def action_spec(name: str, space: spaces.Space) -> Box | Discrete:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise ValueError(
            f"{name}: action space {space} is not supported; expected Box of floats, or Discrete; wrap the environment "
            "with gymnasium.wrappers.TransformAction"
        )
    if not (np.all(np.isfinite(space.low)) and np.all(np.isfinite(space.high)) and np.all(space.low < space.high)):
        raise ValueError(
            f"{name}: action bounds {space.low.tolist()} to {space.high.tolist()} must be finite with low < high; give "
            "finite ones with gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high)), and "
            "leave out gymnasium.wrappers.ClipAction: actions are clipped to the bounds anyway"
        )
    return Box(tuple(space.low.ravel().tolist()), tuple(space.high.ravel().tolist()))


def time_limit(env: gymnasium.Env) -> int | None:
    """The environment's own limit in env steps: from its spec, or from a TimeLimit wrapper around it."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None


def same_space(space: spaces.Space, expected: spaces.Space, bounds: bool) -> bool:
    """Whether two tasks' spaces agree in kind and size and, where asked, in the bounds of a Box."""
    if type(space) is not type(expected) or space.shape != expected.shape:
        return False
    if unsupported_leaf(space) is None and spaces.flatdim(space) != spaces.flatdim(expected):
        return False
    if bounds and isinstance(space, spaces.Box):
        return bool(np.all(space.low == expected.low) and np.all(space.high == expected.high))
    return True


def native_action(space: spaces.Space, action: np.ndarray) -> Any:
    """What the environment's step takes: a number from the space's start on, or an array within the bounds."""
    if isinstance(space, spaces.Discrete):
        return int(action) + int(space.start)
    return np.clip(action.reshape(space.shape), space.low, space.high).astype(space.dtype)


def flattened(space: spaces.Space, obs: Any) -> np.ndarray:
    """float32: [obs_size], of a Box in its own shape."""
    return np.asarray(obs if isinstance(space, spaces.Box) else spaces.flatten(space, obs), np.float32)


# ---------------------------------------------------------------- environments of others, with a trained agent in them

STEP = "(observation, reward, terminated, truncated, info)"


def check_spaces(spec: EnvSpec, env: Any) -> None:
    """Raises where the spaces of a gymnasium environment, flattened, are not those that the agent was trained on."""
    if isinstance(env, gymnasium.vector.VectorEnv) or not isinstance(env, gymnasium.Env):
        raise TypeError(f"expected a single gymnasium.Env, got {env!r}; nacre.make(family, task) gives one")
    found = describe(str(env), env, spec.horizon)
    same = type(found.action) is type(spec.action) and found.action.size == spec.action.size
    if same and not spec.discrete:
        ends = [(np.asarray(a.low), np.asarray(a.high)) for a in (found.action, spec.action)]
        same = np.allclose(ends[0][0], ends[1][0]) and np.allclose(ends[0][1], ends[1][1])
    if not same or found.obs_size != spec.obs_size:
        raise ValueError(
            f"{env} has {found.obs_size} observations and actions {found.action}; the agent was trained on {spec.name} "
            f"with {spec.obs_size} observations and actions {spec.action}; wrap the environment so that they agree"
        )


def answer(out: Any, method: str, size: int, expected: str) -> tuple:
    """What the environment returned, if it is a tuple of the right size."""
    if not isinstance(out, tuple) or len(out) != size:
        raise TypeError(f"{method}() of the environment must return {expected}, got {str(out)[:120]}")
    return out
