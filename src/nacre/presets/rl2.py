"""RL^2's configuration per benchmark. `paper`: on bandits and MDPs its own, with a public reproduction's PPO for its TRPO; on
bodies the baseline of the PEARL paper (ProMP branch full_code, rl2_run_sweep.py and rl2_config.json), which the point robots, that
it does not have, take over. `fast`: ours."""

from nacre.types import EnvSpec

BATCH = 250_000  # env steps of an iteration as published
PAPER = frozenset(
    "cheetah-dir cheetah-vel ant-dir ant-dir-2d ant-goal ant-goal-no-contact humanoid-dir walker-params hopper-params point-robot "
    "sparse-point-robot".split()
)

# Arms could be renumbered without anybody noticing, and a memory for each arm knows it: what takes a GRU ten million env steps with
# a hundred pulls takes less than one, and does not depend on how many arms there are.
_BANDIT = dict(core="per-action", width=16, hidden=(16,), epochs=4, updates_per_epoch=4, max_gradient=0.5, learn_from="regret",
               gae_decay=0.9, learning_rate=5e-3)  # fmt: skip
SHORT_BANDIT = dict(_BANDIT, tasks_per_iteration=512, discount=0.95, entropy_weight=0.005, env_steps=1_000_000,
                    decay_env_steps=1_000_000)  # fmt: skip
# The horizon starts short and grows: what an action does for much later pulls is lost in noise at first.
LONG_BANDIT = dict(_BANDIT, tasks_per_iteration=256, first_discount=0.9, discount=0.99, discount_env_steps=1_500_000,
                   entropy_weight=0.005, env_steps=3_000_000, decay_env_steps=3_000_000)  # fmt: skip
MANY_ARMS = dict(width=32, hidden=(32,), env_steps=4_000_000, decay_env_steps=4_000_000)
VERY_LONG = dict(tasks_per_iteration=64, discount=0.995)
# A memory for each pair of a state and an action, and a plan over them, learn in less than a million env steps what attention does
# not learn in eight. Horizons beyond an episode are what exploring pays for.
MDP = dict(
    core="per-pair", width=16, hidden=(32,), plan_steps=8, input_obs=True, epochs=4, updates_per_epoch=4, max_gradient=0.5,
    learn_from="regret", gae_decay=0.9, first_discount=0.9, learning_rate=2e-3, entropy_weight=0.01,
)  # fmt: skip
SHORT_MDP = dict(MDP, discount=0.97, discount_env_steps=500_000, env_steps=2_000_000, decay_env_steps=2_000_000)
MIDDLE_MDP = dict(MDP, discount=0.99, discount_env_steps=1_000_000, env_steps=3_000_000, decay_env_steps=3_000_000)
LONG_MDP = dict(MDP, discount=0.995, discount_env_steps=1_500_000, env_steps=4_000_000, decay_env_steps=4_000_000)
# With less entropy or a shorter horizon the cells that the first search leaves out are found later.
GRID = dict(
    core="gru", width=64, epochs=4, updates_per_epoch=4, max_gradient=0.5, tasks_per_iteration=256, learning_rate=3e-3,
    gae_decay=0.9, discount=0.98, entropy_weight=0.05, env_steps=8_000_000, decay_env_steps=8_000_000,
)  # fmt: skip
# Episodes soon end after a few of their hundred env steps, so that a quarter of the rows has room for all trials.
MAZE = dict(
    core="gru", width=64, input_obs=True, epochs=4, updates_per_epoch=4, max_gradient=0.5, tasks_per_iteration=128, pack_rows=32,
    learning_rate=2e-3, gae_decay=0.9, discount=0.97, entropy_weight=0.02, learn_from="regret", env_steps=6_000_000,
    decay_env_steps=6_000_000,
)  # fmt: skip
# Of 9 x 9 cells few targets are met at first, so that iterations are long; fewer trials in each leave time for more of them.
LARGE_MAZE = dict(MAZE, tasks_per_iteration=64, env_steps=40_000_000, decay_env_steps=40_000_000)
# Most episodes end within eleven of their 51 env steps, by death or for want of energy.
KRAZY = dict(
    core="gru", width=128, epochs=4, updates_per_epoch=4, max_gradient=0.5, tasks_per_iteration=256, pack_rows=96,
    learning_rate=2e-3, gae_decay=0.95, entropy_weight=0.03, env_steps=12_000_000, decay_env_steps=12_000_000,
)  # fmt: skip
GENERIC = dict(
    core="gru", width=128, epochs=4, updates_per_epoch=4, learning_rate=7e-4, max_gradient=0.5, gae_decay=0.95,
    entropy_weight=0.01,
)  # fmt: skip
CONTINUOUS = dict(
    GENERIC, tasks_per_iteration=64, discount=0.98, entropy_weight=0.0, initial_std=0.6, env_steps=10_000_000
)
DISCRETE = {"grid-navi": GRID, "maze": MAZE, "krazy-world": KRAZY, "krazy-world/hard": KRAZY}


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "paper" and family in ("bandit", "tabular-mdp"):
        return own(spec)
    if name == "paper":
        if family.split("/")[-1] not in PAPER:
            raise ValueError(
                f"the paper preset of rl2 is for bandit and tabular-mdp, and ProMP's for locomotion; {family} is neither; use "
                "the preset fast"
            )
        return dict(episodes=2, env_steps=100 * 2 * spec.horizon * 501, advantages="episode", input_reset=True, baseline="linear",
                    truncate=32, value_weight=0.0)  # fmt: skip
    return dict(fast(family, spec))


def own(spec: EnvSpec) -> dict:
    """Duan et al. 2016, appendix: a GRU of 256, 250,000 env steps per iteration, 1000 iterations. Clipping instead of TRPO as in
    the public reproduction lucaslingle/pytorch_rl2 (train.py), whose gradient steps see 480 trials each."""
    trials = BATCH // (spec.trial_episodes * spec.horizon)
    parts = max(1, trials // 480)
    trials -= trials % parts
    return dict(
        core="gru", width=256, discount=0.99, gae_decay=0.3, tasks_per_iteration=trials, epochs=8, updates_per_epoch=parts,
        clip=0.1, entropy_weight=0.01, learning_rate=2e-4, env_steps=1000 * BATCH,
    )  # fmt: skip


def fast(family: str, spec: EnvSpec) -> dict:
    if family == "bandit":
        return bandit(spec)
    trial = spec.trial_episodes * spec.horizon
    if family == "tabular-mdp":
        found = SHORT_MDP if spec.trial_episodes <= 10 else MIDDLE_MDP if spec.trial_episodes <= 25 else LONG_MDP
        return dict(found, tasks_per_iteration=min(256, max(16, 48_000 // trial // 16 * 16)))
    if family == "maze" and spec.horizon > 100:
        return LARGE_MAZE
    if family in DISCRETE:
        return DISCRETE[family]
    if not spec.discrete:
        return CONTINUOUS | (dict(env_steps=2_000_000, decay_env_steps=2_000_000) if family == "wind" else {})
    return dict(GENERIC, tasks_per_iteration=max(16, 20_000 // trial // 16 * 16), env_steps=20_000_000)


def bandit(spec: EnvSpec) -> dict:
    if spec.trial_episodes <= 20:
        return SHORT_BANDIT
    if spec.trial_episodes > 200:
        return LONG_BANDIT | VERY_LONG
    return LONG_BANDIT | (MANY_ARMS if spec.action.size > 20 else {})
