"""Every preset makes a configuration that fits its family."""

import pytest

from nacre.algorithms.pearl import Config
from nacre.envs.registry import FAMILIES, VARIANTS, make_family, varied
from nacre.presets import pearl as presets

LOOP = {"env_steps", "eval_repetitions", "eval_tasks"}
NOT_OF_PEARL = (  # which the paper does not have
    "grid-navi", "bandit", "tabular-mdp", "wind", "maze", "point-corners", "point-momentum", "point-walls",
    "pendulum", "far-goal", "half-cheetah",
)  # fmt: skip


@pytest.mark.parametrize("name", ["fast", "paper"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.startswith("ml")])
def test_each_family_has_presets(family, name):
    env = make_family(family)
    if name == "paper" and (family in NOT_OF_PEARL or family.startswith("krazy-world")):
        with pytest.raises(ValueError, match=f"no paper preset for '{family}'"):
            presets.preset(name, family, env.spec)
        return
    values = presets.preset(name, family, env.spec)
    config = Config(**{key: value for key, value in values.items() if key not in LOOP})
    assert config.exploration_episodes == env.spec.exploration_episodes
    # what the loop runs for is more than what the first collection takes
    first = len(env.train_tasks) * -(-config.initial_steps // env.spec.horizon) * env.spec.horizon
    assert values["env_steps"] > first
    if family in VARIANTS:
        own = presets.preset(name, varied(family), env.spec)
        assert {**own, "exploration_episodes": 1} == values


def test_released_configurations():
    """oyster configs/*.json over default.py, commit 44e20fd."""
    ant, goal, humanoid, walker = (
        presets.PAPER[name] for name in ("ant-dir", "ant-goal", "humanoid-dir", "walker-params")
    )
    assert Config().initial_steps == 2000 and (Config().prior_steps, Config().extra_steps) == (400, 600)
    assert {c["updates_per_iteration"] for c in (ant, goal, humanoid, walker)} == {4000}
    assert (ant["meta_batch"], goal["meta_batch"], walker["meta_batch"], Config().meta_batch) == (4, 10, 10, 16)
    assert {c["context_batch"] for c in (ant, goal, humanoid)} == {256} and "context_batch" not in walker
    assert goal["kl_weight"] == 1.0 and walker["context_next_obs"] and "context_next_obs" not in ant
    assert presets.PAPER["hopper-params"] == walker
    # 500 iterations of 5 tasks x 1000 env steps after the initial 2000 per training task
    for config, tasks in ((ant, 2), (goal, 150), (humanoid, 100), (walker, 40)):
        assert config["env_steps"] == 2000 * tasks + 500 * 5 * 1000


def test_meta_world_shares_a_preset():
    spec = make_family("point-robot").spec
    assert presets.preset("fast", "ml1/reach-v3", spec) == presets.META_WORLD_ONE
    assert presets.preset("fast", "ml1/push-v3", spec) == presets.META_WORLD_ONE
    many = presets.preset("fast", "ml10", spec)
    assert many["env_steps"] == 5 * many["eval_every"] == 625_000 and many["eval_tasks"] == 50
    assert many["kl_weight"] == presets.META_WORLD_ONE["kl_weight"] and many["factors"] == "matrix"
    own = ("env_steps", "eval_every")  # of the first episodes of so many tasks more
    most = presets.preset("fast", "ml45", spec)
    assert {k: v for k, v in most.items() if k not in own} == {k: v for k, v in many.items() if k not in own}
    assert most["env_steps"] == 1_500_000
