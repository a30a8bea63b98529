"""RL^2's configuration per benchmark. `paper`: the baseline of the PEARL paper (ProMP branch full_code, rl2_run_sweep.py and
rl2_config.json), which is for MuJoCo. `fast`: ours; only SHORT_BANDIT has been run to its end so far."""

from nacre.types import EnvSpec

# A pull pays at once, so credit need not reach far: with a decay of 0.95 instead of 0.3 a bandit of 100 pulls learns nothing in
# two million env steps.
_BANDIT = dict(core="gru", epochs=4, updates_per_epoch=4, max_gradient=0.5, gae_decay=0.3)
SHORT_BANDIT = dict(
    _BANDIT, width=32, tasks_per_iteration=512, learning_rate=1e-2, entropy_weight=0.01, env_steps=2_000_000,
    decay_env_steps=2_000_000,
)  # fmt: skip
LONG_BANDIT = dict(
    _BANDIT, width=48, tasks_per_iteration=256, learning_rate=3e-3, entropy_weight=0.02, discount=0.95, env_steps=10_000_000,
    decay_env_steps=10_000_000,
)  # fmt: skip
GENERIC = dict(
    core="gru", width=128, epochs=4, updates_per_epoch=4, learning_rate=7e-4, max_gradient=0.5, gae_decay=0.95,
    entropy_weight=0.01,
)  # fmt: skip


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "paper":
        return dict(episodes=2, env_steps=100 * 2 * spec.horizon * 501)
    if family == "bandit":
        return dict(SHORT_BANDIT if spec.trial_episodes <= 20 else LONG_BANDIT)
    trial = spec.trial_episodes * spec.horizon
    return dict(GENERIC, tasks_per_iteration=max(16, 20_000 // trial // 16 * 16), env_steps=20_000_000)
