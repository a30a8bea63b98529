"""ProMP's configuration per benchmark. `paper`: the baseline of the PEARL paper (ProMP branch full_code, ppo_run_sweep.py), and for
differing dynamics and points ProMP's own (its sweeps, run_scripts/pro-mp_run_point_mass.py). `fast`: ours."""

from nacre.presets import maml
from nacre.types import EnvSpec

_PARAMS = dict(inner_rate=0.05, epochs=3, kl_weight=1e-3, kl_target=0.01, iterations=1001)
PAPER = {
    name: {key: value for key, value in values.items() if key != "surrogate"}
    for name, values in maml.PAPER.items()
    if not name.startswith("maml/")
}
PAPER |= {"walker-params": _PARAMS, "hopper-params": _PARAMS}
PAPER["point-momentum"] = PAPER["point-momentum"] | dict(hidden=(128, 128))  # experiments/all_envs_eval/ppo_run_all.py
FAST = {  # what differs from MAML's; five epochs on the same episodes need fewer of them
    "point-corners": dict(learning_rate=5e-3), "point-momentum": dict(learning_rate=5e-3, env_steps=2_880_000),
}  # fmt: skip


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "paper":
        return maml.paper(PAPER, "promp", family, spec)
    return maml.fast(family, spec) | dict(learning_rate=3e-3) | FAST.get(family, {})
