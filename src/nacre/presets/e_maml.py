"""E-MAML's configuration per benchmark. `paper`: ProMP's comparison (run_scripts/e-maml_run_mujoco.py: inner steps by the score
function) on the families that MAML has, since the official code has none of these. `fast`: ours."""

from nacre.presets import maml
from nacre.types import EnvSpec

PAPER = {name: values | dict(surrogate="score", iterations=1001) for name, values in maml.PAPER.items()}


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    return (
        maml.paper(PAPER, "e-maml", family, spec)
        if name == "paper"
        else maml.fast(family, spec) | dict(surrogate="score")
    )
