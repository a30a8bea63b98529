"""The README's Python and that of docs/field.md, word for word, but for the length of training."""

import re
from pathlib import Path

import pytest

import nacre
from nacre import cli

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
