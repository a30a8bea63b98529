"""The README's Python and that of docs/field.md, word for word, but for the length of training."""

import re
from pathlib import Path

import numpy as np
import pytest

import nacre
from nacre import cli
from nacre.algorithms.registry import METHODS

ROOT = Path(__file__).parents[1]


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


BLOCKS = blocks("README.md")


@pytest.mark.training
def test_ten_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (lines,) = (block for block in BLOCKS if "agent.adapt" in block)
    assert "seed=0)" in lines
    names = {}
    exec(compile(lines.replace("seed=0)", "seed=0, env_steps=20_000)", 1), "README", "exec"), names)
    assert "shot" in capsys.readouterr().out
    assert len(names["policy"].act(names["obs"])) == 2


def test_a_family_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (lines,) = (block for block in BLOCKS if "nacre.family" in block)
    assert len(lines.splitlines()) <= 15
    Path("pendulum.py").write_text(lines)
    assert cli.main(["check-env", "pendulum.py:pendulum"]) == 0, capsys.readouterr()


def test_in_the_field(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nacre.train(
        "rl2", "point-robot", out="runs/...", env_steps=240, tasks_per_iteration=4, updates_per_epoch=1, epochs=1
    )
    (lines,) = blocks("docs/field.md")
    names = {"env": nacre.make("point-robot", task=(0.5, -0.5))}
    exec(compile(lines, "docs/field.md", "exec"), names)
    assert names["policy"].episode == 3 and Path("robot.memory").is_file()


def test_an_algorithm_of_ones_own(tmp_path, monkeypatch, capsys):
    """Trained, resumed from elsewhere, evaluated; the page has the example's code."""
    (lines,) = blocks("docs/algorithms/own.md")
    assert lines in (ROOT / "examples" / "pearl_mean.py").read_text()
    name = "own.py:MeanPEARL"
    (tmp_path / "own.py").write_text(f"print('executed')\n{lines}")
    monkeypatch.chdir(tmp_path)
    steps = "--env-steps 4000 --initial-steps 20 --prior-steps 20 --extra-steps 20 --eval-every 4000 --until 1"
    small = f"{steps} --updates-per-iteration 2 --updates-per-slice 2 --meta-batch 2 --hidden 8".split()
    assert cli.main(["train", name, "point-robot", "--out", "run", *small]) == 0
    told = capsys.readouterr()
    assert "MeanPEARL on point-robot (fast)" in told.out and (told.out + told.err).count("executed") == 1
    monkeypatch.chdir("/")
    run = tmp_path / "run"
    assert cli.main(["train", "--resume", str(run), "--env-steps", "5000"]) == 0
    agent = nacre.load(run)
    assert type(agent.algorithm).__name__ == "MeanPEARL" and agent.algorithm.config.until == 1
    policy = agent.adapt(nacre.make("point-robot", task=(0.5, -0.5)), episodes=2).policy
    np.testing.assert_allclose(policy.beliefs["z"][0], policy.beliefs["mean"], rtol=1e-5)


def test_an_algorithm_from_scratch(tmp_path, capsys):
    """The example climbs, on a family in JAX and on one of gymnasium's, and adds up its env steps."""
    name = f"{ROOT}/examples/hill_climber.py:Climber"
    options = "--env-steps 200000 --step 0.2 --eval-every 200000 --quiet".split()
    assert cli.main(["train", name, "point-robot", "--out", str(tmp_path / "run"), *options]) == 0
    assert "Climber on point-robot, seed 0, 200,000 env steps" in capsys.readouterr().out
    run = nacre.open_run(tmp_path / "run")
    first, *_, last = (line["metrics"] for line in run.metrics() if line["kind"] == "evaluation")
    assert last["return/shot_2"] > first["return/shot_2"] + 2.0
    small = ["--env-steps", "400", "--eval-every", "400", "--quiet", "--out", str(tmp_path / "other")]
    assert cli.main(["train", name, "gymnasium/Pendulum-v1", *small]) == 0


@pytest.mark.parametrize("name, message", [
    ("none.py:A", "algorithm 'none.py:A': there is no file"),
    ("own.py:Config", "is without init, params, begin.*expected a frozen dataclass"),
    ("own.py:dataclasses", "expected a class"),
    ("own.py:MeanPERL", "Did you mean MeanPEARL"),
    ("own.py", "say which object of the file is the algorithm"),
    ("wrong.py:A", r"wrong.py raised ZeroDivisionError: .*line 1"),
    ("own.py:Bare --preset paper", "Bare has no preset 'paper'"),
])  # fmt: skip
def test_an_algorithm_of_ones_own_that_is_none(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (lines,) = blocks("docs/algorithms/own.md")
    methods = "\n".join(f"    {method} = None" for method in METHODS)
    bare = f"\n@dataclass(frozen=True)\nclass Bare:\n    config: MeanConfig\n    spec: object\n{methods}\n"
    Path("own.py").write_text(lines + bare)
    Path("wrong.py").write_text("1 / 0")
    name, *more = name.split()
    assert cli.main(["train", name, "point-robot", *more]) == 2
    assert re.search(message, capsys.readouterr().err)
