"""VariBAD's configuration per benchmark. `paper`: the official code's config directory (github.com/lmzintgraf/varibad).
`fast`: ours."""

from nacre.types import EnvSpec

GRID = dict(  # config/gridworld/args_grid_varibad.py
    width=64, embeddings=(0, 8, 8), hidden=(32,), policy_embeddings=(16, 16), reward_hidden=(32, 32),
    reward_model="per_state", step_inputs=False, kl_weight=0.01, elbo_beliefs=0, elbo_decodes=0, belief_trials=25,
    belief_updates=3, belief_max_gradient=0.0, belief_capacity=100_000, truncate=0, tasks_per_iteration=16, epochs=2,
    updates_per_epoch=4, clip=0.05,
    value_clip=0.05, discount=0.95, gae_decay=0.95, env_steps=20_000_000,
)  # fmt: skip
# Larger batches, more steps on the belief from fewer beliefs each, and more entropy, without which far cells are never searched.
FAST_GRID = dict(
    GRID, tasks_per_iteration=128, epochs=4, clip=0.2, value_clip=0.0, value_weight=0.5, learning_rate=2e-3, belief_updates=12,
    elbo_beliefs=20, belief_learning_rate=3e-3, belief_capacity=4000, initial_env_steps=0, entropy_weight=0.05, discount=0.97,
    env_steps=8_000_000, decay_env_steps=8_000_000,
)  # fmt: skip
# config/mujoco/args_<family>_varibad.py; all run for 1e8 frames. What differs from Config's defaults (cheetah-dir). An iteration
# has as many env steps as there, in whole trials: 16 processes with 800, 400 or 200 each. On the sparse point robot, whose episodes
# are a fifth as long here, 53 of them, and 56 by its eight minibatches; it learns from the dense reward (`--env.train-on-sparse` as
# there). hopper-params, which it does not have, is as walker-params.
_PAPER = {
    "cheetah-dir": dict(),
    "cheetah-vel": dict(tasks_per_iteration=16, epochs=2, updates_per_epoch=8),
    "ant-dir": dict(tasks_per_iteration=8, epochs=2, updates_per_epoch=1),
    "ant-goal": dict(
        tasks_per_iteration=8, epochs=2, updates_per_epoch=1, clip=0.05, value_clip=0.05, learning_rate=1e-3,
        decay_env_steps=10**8, latent_size=10, belief_updates=5, elbo_beliefs=0, elbo_decodes=0, truncate=0, normalise_belief=False,
    ),
    "humanoid-dir": dict(
        epochs=4, updates_per_epoch=2, decay_env_steps=10**8, hidden=(512, 256), entropy_weight=0.001, discount=0.99,
        latent_size=10, belief_updates=10, elbo_beliefs=100, elbo_decodes=100, truncate=0, normalise_belief=False,
    ),
    "walker-params": dict(
        tasks_per_iteration=8, epochs=2, updates_per_epoch=2, clip=0.05, value_clip=0.05, latent_size=10, kl_weight=1.0,
        embeddings=(32, 32, 32), reward_weight=0.0, state_weight=1.0, state_hidden=(256, 128),
    ),
    "sparse-point-robot": dict(
        tasks_per_iteration=56, epochs=2, updates_per_epoch=8, hidden=(128, 128, 128), entropy_weight=0.001, discount=0.99,
        kl_weight=1.0, belief_updates=3, belief_trials=15, elbo_beliefs=0, elbo_decodes=0, truncate=0, step_inputs=False,
        belief_max_gradient=0.0, episodes=3, env_steps=5 * 10**7,
    ),
}  # fmt: skip
_PAPER["hopper-params"] = _PAPER["walker-params"]
_ALIASES = {"ant-goal-no-contact": "ant-goal", "ant-dir-2d": "ant-dir"}


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    base = family.removeprefix("varibad/").removesuffix("-as-written")
    base = _ALIASES.get(base, base)
    if name == "paper":
        if family == "grid-navi":
            return dict(GRID)
        if base not in _PAPER:
            known = ", ".join(["grid-navi", *sorted(_PAPER), *sorted(_ALIASES)])
            raise ValueError(f"VariBAD's paper has no {family}; it has {known}. Use the preset fast")
        return dict(episodes=2, env_steps=10**8) | _PAPER[base]
    if family == "grid-navi":
        return dict(FAST_GRID)
    # rows enough for batched stepping, and a step on the belief for every few trials
    fast = dict(
        tasks_per_iteration=64, epochs=8, updates_per_epoch=4, clip=0.2, value_clip=0.0, value_weight=0.5, belief_updates=8,
        belief_capacity=2000, initial_env_steps=0, env_steps=10_000_000, decay_env_steps=10_000_000,
    )  # fmt: skip
    if spec.discrete:
        fast |= dict(entropy_weight=0.03)
    return fast
