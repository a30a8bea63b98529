"""VariBAD's configuration per benchmark. `paper`: the official code's config directory. `fast`: ours."""

from nacre.types import EnvSpec

GRID = dict(  # config/gridworld/args_grid_varibad.py
    width=64, embeddings=(0, 8, 8), hidden=(32,), policy_embeddings=(16, 16), reward_hidden=(32, 32),
    reward_model="per_state", step_inputs=False, kl_weight=0.01, elbo_beliefs=0, elbo_decodes=0, belief_trials=25,
    belief_updates=3, belief_max_gradient=0.0, belief_capacity=100_000, truncate=0, epochs=2, updates_per_epoch=4, clip=0.05,
    value_clip=0.05, discount=0.95, gae_decay=0.95, env_steps=20_000_000,
)  # fmt: skip


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    return dict(GRID)
