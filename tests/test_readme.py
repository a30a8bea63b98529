"""The README's Python, word for word, but for the length of its training."""

import re
from pathlib import Path

import pytest

from nacre import cli

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


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
