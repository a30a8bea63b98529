"""Presets of all but PEARL: every family has one that its configuration takes, or a reason why not."""

import pytest

from nacre._settings import LoopConfig
from nacre.algorithms import registry
from nacre.envs.registry import FAMILIES, VARIANTS, make_family
from nacre.presets import e_maml, maesn, maml, promp, rl2, varibad

LOOP = {field for field in LoopConfig.__dataclass_fields__}
EXTRA = {"ml10", "ml25", "ml45"}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(VARIANTS) - EXTRA))
@pytest.mark.parametrize(
    ("algorithm", "presets"),
    [("rl2", rl2), ("varibad", varibad), ("maml", maml), ("e-maml", e_maml), ("promp", promp), ("maesn", maesn)],
)
def test_each_family_has_presets(algorithm, presets, family):
    env = make_family(family)
    for name in ("fast", "paper"):
        try:
            values = presets.preset(name, family, env.spec)
        except ValueError as error:
            assert name == "paper" and family in str(error) and "fast" in str(error)
            continue
        own = {k: v for k, v in values.items() if k not in LOOP}
        made = registry.make_algorithm(algorithm, env.spec, own)
        assert values["env_steps"] >= made.minimum_env_steps(env)
        getattr(made, "check_family", lambda env: None)(env)


def test_paper_presets_are_the_official_ones():
    spec = make_family("grid-navi").spec
    grid = registry.make_algorithm(
        "varibad", spec, {k: v for k, v in varibad.preset("paper", "grid-navi", spec).items() if k not in LOOP}
    )
    c = grid.config
    assert (c.tasks_per_iteration, c.epochs, c.updates_per_epoch, c.clip, c.learning_rate) == (16, 2, 4, 0.05, 7e-4)
    assert (c.latent_size, c.kl_weight, c.belief_trials, c.belief_updates, c.width, c.elbo_weighting) == (
        5,
        0.01,
        25,
        3,
        64,
        "official",
    )
    assert varibad.preset("paper", "hopper-params", spec)["state_weight"] == 1.0
    # 16 processes with so many env steps each, in trials of two episodes of 200
    steps = {
        "cheetah-dir": 800,
        "cheetah-vel": 400,
        "humanoid-dir": 800,
        "ant-dir": 200,
        "ant-goal": 200,
        "walker-params": 200,
    }
    for family, each in steps.items():
        values = registry.make_config(
            registry.config_class("varibad"),
            {k: v for k, v in varibad.preset("paper", family, spec).items() if k not in LOOP},
        )
        assert values.tasks_per_iteration * 400 == 16 * each and values.value_weight == 0.125
    sparse = varibad.preset("paper", "sparse-point-robot", spec)  # 16 x 200, and whole minibatches
    assert abs(sparse["tasks_per_iteration"] * sparse["episodes"] * 20 - 3200) <= 60 * sparse["updates_per_epoch"] / 2
    assert varibad.preset("paper", "varibad/ant-dir", spec) == varibad.preset("paper", "ant-dir", spec)
    with pytest.raises(ValueError, match="paper has no bandit"):
        varibad.preset("paper", "bandit", spec)
    with pytest.raises(ValueError, match="ProMP's for locomotion; grid-navi is neither"):
        rl2.preset("paper", "grid-navi", spec)


@pytest.mark.parametrize(("family", "params", "trial"), [
    ("bandit", {"pulls": 10}, 10), ("bandit", {"pulls": 500, "arms": 50}, 500), ("tabular-mdp", {"episodes": 100}, 1000),
])  # fmt: skip
def test_paper_preset_of_rl2_has_the_published_batches(family, params, trial):
    values = rl2.preset("paper", family, make_family(family, **params).spec)
    assert (values["core"], values["width"], values["discount"], values["gae_decay"]) == ("gru", 256, 0.99, 0.3)
    assert 0.98 * 250_000 < values["tasks_per_iteration"] * trial <= 250_000 and values["env_steps"] == 250_000_000


def test_presets_of_bandits_follow_pulls():
    at = lambda arms, pulls: rl2.preset("fast", "bandit", make_family("bandit", arms=arms, pulls=pulls).spec)  # noqa: E731
    assert at(5, 10) == rl2.SHORT_BANDIT and at(10, 100) == rl2.LONG_BANDIT and at(50, 100)["width"] == 32
    assert at(50, 500) == rl2.LONG_BANDIT | rl2.VERY_LONG
    mdp = lambda n: rl2.preset("fast", "tabular-mdp", make_family("tabular-mdp", episodes=n).spec)  # noqa: E731
    assert [mdp(n)["tasks_per_iteration"] for n in (10, 25, 100)] == [256, 192, 48]
    assert [mdp(n)["discount"] for n in (10, 25, 100)] == [0.97, 0.99, 0.995]


def test_maesn_on_bodies_adapts_by_the_dense_reward_on_every_back_end():
    for spec in (make_family("wheeled-robot").spec, make_family("wheeled-robot", backend="mjx").spec):
        assert maesn.preset("fast", "wheeled-robot", spec)["inner_reward"] == "train"
    assert maesn.preset("fast", "sparse-point-robot", make_family("sparse-point-robot").spec)["inner_reward"] == "seen"


def test_large_mazes_take_more_env_steps():
    steps = [rl2.preset("fast", "maze", make_family("maze", size=size).spec)["env_steps"] for size in (5, 9)]
    assert steps == [6_000_000, 40_000_000]


def test_paper_presets_of_gradient_agents_count_their_env_steps():
    """500 iterations of 40 tasks x 20 episodes x 200 env steps, before and after an inner step: the PEARL paper's 160 million."""
    spec = make_family("cheetah-vel").spec
    values = maml.preset("paper", "cheetah-vel", spec)
    assert values["env_steps"] == 501 * 320_000 and values["surrogate"] == "ratio"
    assert promp.preset("paper", "cheetah-vel", spec)["env_steps"] == 501 * 320_000
    assert maml.preset("paper", "ant-goal", spec)["env_steps"] == 501 * 320_000
    own = maml.preset("paper", "maml/cheetah-dir", spec)
    assert own["test_steps"] == 3 and own["hidden"] == (100, 100) and own["activation"] == "relu"
    assert promp.preset("paper", "walker-params", spec)["kl_target"] == 0.01
    assert e_maml.preset("paper", "cheetah-dir", spec)["surrogate"] == "score"
    for one, name in ((maml, "maml"), (promp, "promp"), (e_maml, "e-maml")):
        with pytest.raises(ValueError, match=f"{name}'s paper has no grid-navi"):
            one.preset("paper", "grid-navi", spec)
