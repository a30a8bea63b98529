"""The contract: every family keeps it, and each way of breaking it is found and explained."""

import importlib.util
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre.envs.check_env import check_env
from nacre.envs.registry import FAMILIES, make_family
from nacre.types import Box, Discrete, EnvSpec, Step

SPEC = EnvSpec("line", obs_size=2, action=Box((-1.0,), (1.0,)), horizon=12, jittable=False)


@dataclass(frozen=True)
class Line:
    """A correct host family: a point on a line, rewarded for being near the task. Subclasses break one thing each."""

    spec: EnvSpec = SPEC

    @property
    def train_tasks(self):
        return np.linspace(-1, 1, 6, dtype=np.float32)

    @property
    def test_tasks(self):
        return np.linspace(-0.9, 0.9, 3, dtype=np.float32)

    def sample_tasks(self, key, n):
        return generator(key).uniform(-1, 1, n).astype(np.float32)

    def reset(self, key, tasks):
        x = generator(key).uniform(-1, 1, len(tasks)).astype(np.float32)
        return (x, tasks, 0), self.observe(x, tasks)

    def observe(self, x, tasks):
        return np.stack([x, np.sin(x)], axis=-1)

    def step(self, state, action, active):
        x, tasks, t = state
        x = self.move(x, np.asarray(action)[:, 0], np.asarray(active), tasks)
        reward = self.reward(x, tasks)
        over = self.terminal(x, t + 1)
        return (x, tasks, t + 1), Step(self.observe(x, tasks), reward, reward, over, self.info(x, t + 1))

    def move(self, x, push, active, tasks):
        return np.where(active, x + 0.1 * push, x)

    def reward(self, x, tasks):
        return -np.abs(x - tasks)

    def terminal(self, x, t):
        return np.zeros(x.shape, bool)

    def info(self, x, t):
        return {"x": x}

    def oracle(self, tasks, obs, t):
        return None


def generator(key):
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def broken(**methods):
    """A Line with some methods or attributes replaced."""
    return type("Broken", (Line,), methods)()


def spec_with(**changes):
    return Line(replace(SPEC, **changes))


class Global:
    """State that outlives an episode."""

    count = 0

    def reward(self, x, tasks):
        Global.count += 1
        return np.float32(-np.abs(x - tasks) + 0.1 * Global.count)


def changing_sampler(self, key, n):
    Global.count += 1
    return np.full(n, Global.count, np.float32)


def leaky(self, x, push, active, tasks):
    return np.where(active, x + 0.1 * push + 0.01 * np.sum(push), x)


def disturbed(self, x, push, active, tasks):
    return np.where(active, x + 0.1 * push * active.mean(), x).astype(np.float32)


def scaled(self, x, tasks):
    return np.stack([x, tasks], axis=-1)


def explode(self, x, push, active, tasks):
    return (x + np.where(push == 1, np.inf, 0.1 * push)).astype(np.float32)


def drift(self, x, push, active, tasks):
    return np.where(np.arange(len(x)) == 1, x * np.float32(1e8), x + 0.1 * push).astype(np.float32)


def raising(self, key, tasks):
    raise ZeroDivisionError("inside")


def train_tasks_of(value):
    return property(lambda self: value)


BROKEN = {
    "lacks oracle": SimpleNamespace(spec=SPEC, train_tasks=0, test_tasks=0, sample_tasks=0, reset=0, step=0),
    "spec is a dict": Line({"obs_size": 2}),
    "spec.horizon is 0": spec_with(horizon=0),
    "spec.obs_size is 2.0": spec_with(obs_size=2.0),
    "there are 1 actions": spec_with(action=Discrete(1)),
    "action bounds are": spec_with(action=Box((-np.inf,), (1.0,))),
    "spec.action is None": spec_with(action=None),
    "sample_tasks gives other tasks": broken(sample_tasks=changing_sampler),
    "sample_tasks.key, 5. leads with": broken(sample_tasks=lambda self, key, n: np.zeros(n + 1, np.float32)),
    "sample_tasks.key, 5. has .shape, dtype.": broken(sample_tasks=lambda self, key, n: np.zeros((n, 2), np.float32)),
    "train_tasks leads with": broken(train_tasks=train_tasks_of(np.zeros(0, np.float32))),
    "train_tasks holds numbers that are not finite": broken(train_tasks=train_tasks_of(np.float32([0, np.nan]))),
    "3 test task.s. are also training tasks": broken(train_tasks=Line.test_tasks),
    "the observation of reset has shape": spec_with(obs_size=3),
    "the observation of reset has dtype float64": broken(observe=lambda self, x, tasks: np.zeros((len(x), 2))),
    "the reward has shape": broken(reward=lambda self, x, tasks: np.zeros((len(x), 1), np.float32)),
    "the reward has dtype float64": broken(reward=lambda self, x, tasks: -np.abs(x - tasks).astype(np.float64)),
    "the reward holds numbers": broken(reward=lambda self, x, tasks: np.full(len(x), np.nan, np.float32)),
    "terminal has dtype int64": broken(terminal=lambda self, x, t: np.zeros(len(x), np.int64)),
    "info.'x'. has shape": broken(info=lambda self, x, t: {"x": 1.0}),
    "info.'truncated'. has dtype": broken(info=lambda self, x, t: {"truncated": np.zeros(len(x))}),
    "step returns a dict": broken(step=lambda self, state, action, active: (state, {})),
    "obs is not finite at env step": broken(move=drift),
    "an episode ended before the horizon": broken(terminal=lambda self, x, t: np.full(len(x), t == 5)),
    "an episode ended before the horizon of": broken(info=lambda self, x, t: {"truncated": np.full(len(x), t == 5)}),
    "two different episodes": broken(reward=Global.reward),
    "neither reward nor observation depended": broken(reward=lambda self, x, tasks: -np.abs(x)),
    "the first observation changes with the task .entries .1..": broken(observe=scaled),
    "a row's episode changed with the tasks or actions of other rows": broken(move=leaky),
    "active rows changed when other rows were inactive": broken(move=disturbed),
    "led to numbers that are not finite": broken(move=explode),
    "checking reset and step raised ZeroDivisionError: inside": broken(reset=raising),
    "checking jit raised": spec_with(jittable=True),
}


# variants that differ from their family in the length of a trial only
SAME = [f"varibad/{name}" for name in (
    "cheetah-vel", "cheetah-dir", "ant-goal", "humanoid-dir", "walker-params", "hopper-params", "ant-dir-as-written",
    "ant-dir-2d-as-written",
)] + ["promp/ant-goal"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in SAME])
def test_registered_families_keep_the_contract(name):
    if FAMILIES[name][0].startswith("nacre.envs.metaworld") and importlib.util.find_spec("metaworld") is None:
        pytest.skip("Meta-World is not installed: pip install -e '.[metaworld]'")
    assert check_env(make_family(name), jax.random.key(0)) == []


@pytest.mark.parametrize("name", [
    "gymnasium/CartPole-v1",
    "gymnasium/FrozenLake-v1",
    "examples/pendulum_family.py:pendulum",
    "examples/reacher_family.py:reacher",
    "examples/cartpole_direction.py:cartpole",
])  # fmt: skip
def test_user_families_keep_the_contract(name, request):
    if name.startswith("examples"):
        name = f"{request.config.rootpath}/{name}"
    assert check_env(make_family(name), jax.random.key(0)) == []


def test_a_correct_family_has_no_violations():
    assert check_env(Line(), jax.random.key(0)) == []
    assert check_env(spec_with(can_terminate=True), jax.random.key(0)) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", BROKEN)
def test_each_broken_clause_is_found(what):
    found = check_env(BROKEN[what], jax.random.key(0))
    assert any(re.search(what, violation.what) for violation in found), found
    for violation in found:
        assert violation.expected and violation.remedy


def test_what_does_not_repeat_is_not_compared():
    """Else one cause would be told as five violations with the remedies of four others."""
    found = check_env(BROKEN["two different episodes"], jax.random.key(0))
    assert len(found) == 1 and "nothing could be checked by comparing" in found[0].what


def test_train_is_test_by_design():
    env = broken(train_tasks=Line.test_tasks, train_is_test=True)
    assert check_env(env, jax.random.key(0)) == []


def test_terminals_are_fine_where_the_spec_says_so():
    env = type("Ends", (Line,), {"terminal": lambda self, x, t: x > 0.5})(replace(SPEC, can_terminate=True))
    assert check_env(env, jax.random.key(0)) == []


def test_compiled_and_plain_must_agree():
    class Traced(Line):
        """Behaves differently under jit."""

        def reset(self, key, tasks):
            x = jax.random.uniform(key, tasks.shape)
            return (x, tasks, 0), jnp.stack([x, x], axis=-1)

        def step(self, state, action, active):
            x, tasks, t = state
            x = x + 0.1 * action[:, 0] + float(isinstance(x, jax.core.Tracer))
            reward = -jnp.abs(x - tasks)
            return (x, tasks, t), Step(jnp.stack([x, x], axis=-1), reward, reward, jnp.zeros(x.shape, bool), {})

    found = check_env(Traced(replace(SPEC, jittable=True)), jax.random.key(0))
    assert [violation.what for violation in found] == ["compiled and plain results differ"]


def test_an_oracle_shows_what_random_actions_would_miss():
    def sparse(self, x, tasks):
        return (np.abs(x - tasks) < 1e-4).astype(np.float32)

    def oracle(self, tasks, obs, t):
        return np.clip((tasks - obs[:, 0]) / 0.1, -1, 1)[:, None]

    key = jax.random.key(0)
    spec = replace(SPEC, horizon=40)
    assert check_env(type("Seen", (Line,), {"reward": sparse, "oracle": oracle})(spec), key) == []
    found = check_env(type("Missed", (Line,), {"reward": sparse})(spec), jax.random.clone(key))
    assert ["neither reward nor observation" in violation.what for violation in found] == [True]


def test_an_exception_of_many_checks_is_told_once_with_its_place():
    class Breaks(Line):
        steps = 0

        def step(self, state, action, active):
            type(self).steps += 1
            if type(self).steps > 3:
                raise ZeroDivisionError("boom")
            return super().step(state, action, active)

    found = [v for v in check_env(Breaks(replace(SPEC, jittable=False)), jax.random.key(0)) if "boom" in v.what]
    assert len(found) == 1 and ", " in found[0].what.partition(" raised ")[0]
    assert re.search(r"the last line that ran is \d+ of .*test_check_env.py", found[0].remedy)
