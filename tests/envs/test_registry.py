"""Names of families: registered, gymnasium's, and of the user's own files."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from nacre.envs import registry
from nacre.envs.backends.gymnasium import GymnasiumFamily
from nacre.envs.cheetah import CheetahVel
from nacre.types import Environment

EXAMPLES = Path(__file__).parents[2] / "examples"
FAMILY_FILES = {"pendulum_family.py": "pendulum", "reacher_family.py": "reacher", "cartpole_direction.py": "cartpole"}


def write(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_registered_families_with_parameters():
    env = registry.make_family("cheetah-vel", horizon=50, max_speed=2.0)
    assert env == CheetahVel(horizon=50, max_speed=2.0) and isinstance(env, Environment)
    assert registry.family_class("cheetah-vel") is CheetahVel
    assert [name for name, _ in registry.list_families()] == list(registry.FAMILIES)


@pytest.mark.parametrize("name", ["cheetah-vel", "cheetah-dir", "point-robot", "sparse-point-robot"])
def test_the_name_in_the_spec_is_the_registered_one(name):
    assert registry.make_family(name).spec.name == name


@pytest.mark.parametrize("name, params, message", [
    ("cheeta-vel", {}, "unknown task family 'cheeta-vel'. Did you mean cheetah-vel.*path/file.py:name"),
    ("cheetah-vel", {"horizn": 1}, "unknown parameter of cheetah-vel 'horizn'. Did you mean horizon"),
    ("gymnasium/CartPole-v1", {"horizn": 1}, "unknown parameter of gymnasium.* Did you mean horizon"),
    ("gymnasium/CartPol-v1", {}, "CartPole"),
    (f"{EXAMPLES}/pendulum_famly.py:pendulum", {}, "there is no file .*Did you mean .*pendulum_family.py"),
    ("nowhere/at_all.py:x", {}, "there is no file nowhere/at_all.py"),
    (f"{EXAMPLES}/pendulum_family.py:pendulm", {}, "no object 'pendulm'. Did you mean pendulum"),
    (f"{EXAMPLES}/pendulum_family.py", {}, "say which object of the file is the family"),
    (f"{EXAMPLES}/pendulum_family.py:gymnasium", {}, "of type module, is without train_tasks"),
    (f"{EXAMPLES}/pendulum_family.py:make", {}, "missing a required argument: 'task'.*nacre.family"),
    (f"{EXAMPLES}/pendulum_family.py:pendulum", {"horizon": 3}, "takes no parameters, got horizon"),
])  # fmt: skip
def test_unknown_names(name, params, message):
    with pytest.raises(ValueError, match=message):
        registry.make_family(name, **params)


@pytest.mark.parametrize("name", [3, None])
def test_names_are_strings(name):
    with pytest.raises(ValueError, match=f"name is a string like 'cheetah-vel', got {name}"):
        registry.make_family(name)


def test_gymnasium_environments():
    assert registry.make_family("gymnasium/CartPole-v1").spec.horizon == 500
    assert registry.make_family("gymnasium/CartPole-v1", horizon=7).spec.horizon == 7
    assert registry.family_class("gymnasium/CartPole-v1") is None


@pytest.mark.parametrize("file, name", FAMILY_FILES.items())
def test_examples_are_families_of_at_most_15_lines(file, name):
    env = registry.make_family(f"{EXAMPLES / file}:{name}")
    assert isinstance(env, GymnasiumFamily) and isinstance(env, Environment)
    text = re.sub(r'^""".*?"""', "", (EXAMPLES / file).read_text(), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"(import|from) ", line)]
    assert len(lines) <= 15


def test_a_users_dataclass_has_parameters(tmp_path):
    text = """
from dataclasses import dataclass
from nacre.envs.cheetah import CheetahVel
@dataclass(frozen=True)
class Slow(CheetahVel):
    max_speed: float = 0.5
def slower(factor=2.0):
    return Slow(max_speed=0.5 / factor)
"""
    path = write(tmp_path, text)
    assert registry.make_family(f"{path}:Slow").max_speed == 0.5
    assert registry.make_family(f"{path}:Slow", max_speed=0.1).max_speed == 0.1
    assert registry.make_family(f"{path}:slower", factor=5).max_speed == pytest.approx(0.1)
    assert registry.family_class(f"{path}:Slow").__name__ == "Slow"
    assert registry.family_class(f"{path}:slower") is None
    with pytest.raises(ValueError, match=r"unknown parameter of .*'max_sped'. Did you mean max_speed"):
        registry.make_family(f"{path}:Slow", max_sped=0.1)


def test_a_users_file_that_fails_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"mine.py raised ModuleNotFoundError: No module named 'no_such'"):
        registry.make_family(f"{write(tmp_path, 'import no_such')}:x")
    with pytest.raises(ValueError, match=r"mine.py raised SyntaxError"):
        registry.make_family(f"{write(tmp_path, 'def (')}:x")


def test_a_users_file_that_fails_names_its_line(tmp_path):
    path = write(tmp_path, "import math\nx = 1\ny = x / 0")
    with pytest.raises(ValueError, match=r"mine.py raised ZeroDivisionError: division by zero; line 3"):
        registry.make_family(f"{path}:y")


def test_a_users_file_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text("number = 3\n")
    with pytest.raises(ValueError, match="of type int, is without spec"):
        registry.make_family(f"{write(tmp_path, 'from beside_it import number')}:number")


@pytest.mark.parametrize("name", ["macaw/ant-dir", "macaw/cheetah-vel"])
def test_fixed_lists_have_no_other_tasks(name):
    family = registry.make_family(name)
    drawn = np.asarray(family.sample_tasks(jax.random.key(0), 1000))
    np.testing.assert_array_equal(np.unique(drawn), np.unique(family.train_tasks))
    assert drawn.dtype == family.train_tasks.dtype


def test_a_fixed_list_of_speeds_has_a_fixed_limit():
    with pytest.raises(ValueError, match="fixed list up to 3 m/s, got max_speed=1"):
        registry.make_family("macaw/cheetah-vel", max_speed=1.0)


@pytest.mark.parametrize(("name", "params"), [
    ("cheetah-vel", {"horizon": 2.5}), ("cheetah-vel", {"threads": 1.5}), ("ant-goal", {"n_train": "x"}),
    ("point-robot", {"n_test": 2.5}),
])  # fmt: skip
def test_counts_are_whole_numbers(name, params):
    with pytest.raises(ValueError, match=next(iter(params))):
        registry.make_family(name, **params)
