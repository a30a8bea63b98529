"""MAESN's configuration per benchmark. `paper`: the official code's (maesn_suite: launchers, released hyper-parameters), also on
the sparse point robot, for which PEARL's authors ran that code. `fast`: ours."""

from nacre.presets import maml
from nacre.types import EnvSpec

ITERATIONS, TASKS, EPISODES = 500, 20, 50
# The official meta-test takes 100 steps whose sizes halve from the third on: after ten, all further ones together are 1 % of alpha.
TEST_STEPS = 10
PAPER = ("wheeled-robot", "block-push", "ant-ring", "sparse-point-robot")


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "fast":
        return {key: maml.fast(family, spec)[key] for key in ("tasks_per_iteration", "episodes_per_step", "env_steps")}
    if family not in PAPER:
        raise ValueError(f"maesn's paper has no {family}; it has {', '.join(PAPER)}. Use the preset fast")
    return dict(test_steps=TEST_STEPS, env_steps=ITERATIONS * TASKS * EPISODES * 2 * spec.horizon)
