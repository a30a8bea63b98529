"""Names of the task families. Holds strings only: a family's file is imported when it is asked for."""

import dataclasses
import importlib
import inspect
from typing import Any

from nacre.envs.files import close_matches, is_file, load_from_file, of_file

# name -> (module:class, one line for `nacre list`); the class is a frozen dataclass whose fields are the parameters
FAMILIES: dict[str, tuple[str, str]] = {
    "point-robot": ("nacre.envs.point_robot:PointRobot", "go to a goal in a square; reward is minus the distance"),
    "sparse-point-robot": (
        "nacre.envs.point_robot:SparsePointRobot",
        "find a goal on a half circle; reward only within 0.2 of it",
    ),
    "cheetah-vel": ("nacre.envs.cheetah:CheetahVel", "MuJoCo half-cheetah that must run at a hidden speed, 0-3 m/s"),
    "cheetah-dir": ("nacre.envs.cheetah:CheetahDir", "MuJoCo half-cheetah that must run forward or backward"),
    "half-cheetah": ("nacre.envs.cheetah:HalfCheetah", "MuJoCo half-cheetah that must run forward: one task"),
    "ant-dir": ("nacre.envs.ant:AntDir", "MuJoCo ant that must run forward or backward"),
    "ant-dir-2d": ("nacre.envs.ant:AntDir2D", "MuJoCo ant that must run in a hidden direction"),
    "ant-goal": ("nacre.envs.ant:AntGoal", "MuJoCo ant that must go to a hidden place; sees contact forces"),
    "ant-goal-no-contact": ("nacre.envs.ant:AntGoalNoContact", "the same without contact forces"),
    "humanoid-dir": ("nacre.envs.humanoid:HumanoidDir", "MuJoCo humanoid that must run in a hidden direction"),
    "walker-params": ("nacre.envs.rand_params:WalkerParams", "MuJoCo walker with a hidden body: 65 factors"),
    "hopper-params": ("nacre.envs.rand_params:HopperParams", "MuJoCo hopper with a hidden body: 41 factors"),
    "wheeled-robot": (
        "nacre.envs.wheeled_robot:WheeledRobot",
        "MuJoCo cart that must find a goal on a half circle; reward tells the distance only near it",
    ),
    "block-push": (
        "nacre.envs.block_push:BlockPush",
        "MuJoCo gripper that must find out which of five blocks to push where; reward only near the goal",
    ),
    "ant-ring": ("nacre.envs.ant_ring:AntRing", "MuJoCo ant with weak motors, goals and reward as wheeled-robot's"),
    "grid-navi": ("nacre.envs.grid_navi:GridNavi", "discrete: find a hidden cell of a 5 x 5 grid and stay on it"),
    "bandit": ("nacre.envs.bandit:Bandit", "discrete: arms that pay with hidden probabilities, a pull is an episode"),
    "tabular-mdp": (
        "nacre.envs.tabular:TabularMdp",
        "discrete: a small random MDP whose transitions and rewards are hidden",
    ),
    "pendulum": ("nacre.envs.pendulum:Pendulum", "swing a rod up and hold it: one task, or a hidden mass and length"),
    "far-goal": ("nacre.envs.far_goal:FarGoal", "one task: reach a rewarded disc that small noise never finds"),
    "wind": ("nacre.envs.wind:Wind", "reach a small disc and hold against a hidden wind; one episode per trial"),
    "point-corners": (
        "nacre.envs.points:PointCorners",
        "go to a hidden corner; paid for progress in its quadrant only",
    ),
    "point-momentum": ("nacre.envs.points:PointMomentum", "go to a hidden corner by accelerating; paid within 2 of it"),
    "point-walls": (
        "nacre.envs.point_walls:PointWalls",
        "go to a hidden corner through hidden gaps in two round walls",
    ),
    "krazy-world": (
        "nacre.envs.krazy_world:KrazyWorld",
        "discrete: collect goals on a board of death, ice, energy and transporters, seen only around the agent",
    ),
    "krazy-world/easy": ("nacre.envs.krazy_world:Easy", "5 x 5 tiles, no need of energy, known actions"),
    "krazy-world/medium": ("nacre.envs.krazy_world:Medium", "7 x 7 tiles, one goal, energy for 8 steps, known actions"),
    "krazy-world/hard": ("nacre.envs.krazy_world:Hard", "10 x 10 tiles, a corner behind a door that needs its key"),
    "maze": ("nacre.envs.maze:Maze", "discrete: find a hidden target in a random maze, remember the way"),
}
VARIANTS: dict[str, tuple[str, str]] = {
    "maml/point-robot": (
        "nacre.envs.point_robot:MamlPointRobot",
        "goals in a square of side 1, 100 env steps, over at the goal",
    ),
    "maml/cheetah-vel": ("MamlCheetahVel", "env steps of 0.01 s, speed of the mass centre, 0-2 m/s"),
    "maml/cheetah-dir": ("MamlCheetahDir", "env steps of 0.01 s, speed of the mass centre"),
    "maml/ant-dir": ("nacre.envs.ant_rllab:MamlAntDir", "env steps of 0.02 s, softer contacts, 125 numbers observed"),
    "maml/ant-vel": ("nacre.envs.ant_rllab:MamlAntVel", "the same ant at a hidden speed, 0-3 m/s"),
    "maml/ant-goal": ("nacre.envs.ant_rllab:MamlAntGoal", "the same ant, goals in a square of 3 m, falls end episodes"),
    "promp/cheetah-vel": ("PrompCheetahVel", "17 numbers observed"),
    "promp/cheetah-dir": ("PrompCheetahDir", "17 numbers observed, 100 env steps"),
    "promp/ant-dir": ("PrompAntDir", "contact forces observed, over below 0 m"),
    "promp/ant-dir-2d": ("PrompAntDir2D", "contact forces observed, over below 0 m"),
    "promp/ant-goal": ("PrompAntGoal", "one round of adaptation"),
    "varibad/cheetah-vel": ("VaribadCheetahVel", "trials of two episodes"),
    "varibad/cheetah-dir": ("VaribadCheetahDir", "trials of two episodes"),
    "varibad/ant-dir": ("VaribadAntDir", "as coded: directions of -1 and +1 radian"),
    "varibad/ant-dir-as-written": ("VaribadAntDirAsWritten", "trials of two episodes"),
    "varibad/ant-dir-2d": ("VaribadAntDir2D", "as coded: directions within 1 radian of forward"),
    "varibad/ant-dir-2d-as-written": ("VaribadAntDir2DAsWritten", "trials of two episodes"),
    "varibad/ant-goal": ("VaribadAntGoal", "trials of two episodes"),
    "varibad/humanoid-dir": ("VaribadHumanoidDir", "trials of two episodes"),
    "varibad/walker-params": ("VaribadWalkerParams", "trials of two episodes"),
    "varibad/hopper-params": ("VaribadHopperParams", "trials of two episodes"),
    "macaw/cheetah-vel": ("MacawCheetahVel", "40 equally spaced speeds, 5 held out"),
    "macaw/ant-dir": ("MacawAntDir", "50 fixed directions, 5 held out"),
}
FAMILIES |= {
    name: (path if ":" in path else f"nacre.envs.variants:{path}", line) for name, (path, line) in VARIANTS.items()
}
FAMILIES |= {
    "ml10": ("nacre.envs.metaworld:ML10", "Meta-World: 10 classes of manipulation, 5 others held out (extra)"),
    "ml25": ("nacre.envs.metaworld:ML25", "Meta-World: 25 classes, 5 held out (extra)"),
    "ml45": ("nacre.envs.metaworld:ML45", "Meta-World: 45 classes, 5 others held out (extra)"),
}
ML1 = "ml1/"  # ml1/<task>: one class of Meta-World, goals held out
GYMNASIUM = "gymnasium/"  # gymnasium/<id>: one registered gymnasium environment as a family with a single task


def varied(name: str) -> str:
    """The family of ours that a variant varies, or is nearest to."""
    nearest = {"macaw/ant-dir": "ant-dir-2d", "maml/ant-vel": "ant-dir-2d"}
    return nearest.get(name) or name.partition("/")[2].removesuffix("-as-written")


def load_object(path: str) -> Any:
    """`module:name` -> the object."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def unknown(kind: str, name: str, known: list[str]) -> ValueError:
    """The error for a name that is not registered: close matches, or all names where there are none or few."""
    close = close_matches(name, known)
    listed = "" if close and len(known) > 12 else f" Known: {', '.join(known)}."
    return ValueError(f"unknown {kind} {name!r}.{close}{listed}")


def list_families() -> list[tuple[str, str]]:
    """(name, one line) of each registered family; imports nothing."""
    return [(name, line) for name, (_, line) in FAMILIES.items()]


def listing(entries: list[tuple[str, str]]) -> str:
    """(name, one line) entries as text, a line each."""
    width = max(len(name) for name, _ in entries) + 1
    return "\n".join(f"  {name:{width}} {line}" for name, line in entries)


def make_family(name: str, **params: Any) -> Any:
    """The Environment called `name`: a registered family, `ml1/<task>`, `gymnasium/<id>`, or `path/file.py:name` of the user's.

    params: the family's parameters (fields of its dataclass; `horizon` and `processes` for a gymnasium environment). Raises
    ValueError, with close matches, for an unknown name or parameter, and for a file that does not bring an Environment.
    """
    if not isinstance(name, str):
        raise ValueError(f"a task family's name is a string like 'cheetah-vel', got {name!r}; nacre list shows all")
    if name.startswith(GYMNASIUM):
        from nacre.envs.backends.gymnasium import single

        env_id = name.removeprefix(GYMNASIUM)
        return built(name, lambda horizon=None, processes=0: single(env_id, horizon, processes), params)
    if is_file(name):
        return checked(name, built(name, load_from_file(name), params))
    return simulated(built(name, family_class(name), params))


def simulated(env: Any) -> Any:
    """A family on the back end that its field `backend` names; any other Environment as it is."""
    if getattr(env, "backend", "c") not in ("mjx", "warp"):
        return env
    from nacre.envs.backends.mjx import MjxFamily

    return env if isinstance(env, MjxFamily) else MjxFamily(env)


def family_class(name: str) -> type | None:
    """The dataclass whose fields are the family's parameters, or None where it has none."""
    if name.startswith(GYMNASIUM):
        return None
    if is_file(name):
        found = load_from_file(name)
        return found if isinstance(found, type) and dataclasses.is_dataclass(found) else None
    if name.startswith(ML1):
        from nacre.envs.metaworld import ml1

        return ml1(name.removeprefix(ML1))
    if name not in FAMILIES:
        hint = "A family of your own is path/file.py:name, a gymnasium environment gymnasium/<id>, a Meta-World task ml1/<task>; "
        raise ValueError(f"{unknown('task family', name, list(FAMILIES))} {hint}nacre list shows all.")
    return load_object(FAMILIES[name][0])


def built(name: str, found: Any, params: dict[str, Any]) -> Any:
    """A class or function is called with the parameters; an object is the family itself and takes none."""
    if not callable(found):
        refuse_params(name, params)
        return found
    if dataclasses.is_dataclass(found):
        known = [field.name for field in dataclasses.fields(found) if field.init]
    else:
        known = [p.name for p in inspect.signature(found).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for param in params:
        if param not in known:
            raise unknown(f"parameter of {name}", param, known) if known else no_params(name, params)
    try:
        inspect.signature(found).bind(**params)
    except TypeError as error:
        raise ValueError(
            f"task family {name!r} cannot be made: {error}; expected a function or class that can be called with the "
            "given parameters and returns an Environment, e.g. one made by nacre.family(make, sample_tasks)"
        ) from error
    try:
        return found(**params)
    except (ValueError, TypeError, ImportError, OSError):  # which say what was wrong
        raise
    except Exception as error:
        if not is_file(name):
            raise
        raise of_file(name, "task family", error) from error


def no_params(name: str, params: dict[str, Any]) -> ValueError:
    return ValueError(f"{name} takes no parameters, got {', '.join(params)}")


def refuse_params(name: str, params: dict[str, Any]) -> None:
    if params:
        raise no_params(name, params)


def checked(name: str, env: Any) -> Any:
    """The object, if it is an Environment."""
    needed = ("spec", "train_tasks", "test_tasks", "sample_tasks", "reset", "step", "oracle")
    missing = [attribute for attribute in needed if not hasattr(env, attribute)]
    if missing:
        raise ValueError(
            f"task family {name!r}, of type {type(env).__name__}, is without {', '.join(missing)}; expected an Environment: "
            "make one with nacre.family(make, sample_tasks), or write a class like nacre.types.Environment"
        )
    return env
