"""Runs that begin with what an earlier one learnt (`start_from`)."""

import json
import shutil

import jax
import numpy as np
import pytest

import nacre
from nacre import UserError, _checkpoints, report, runs
from nacre._head_start import START
from nacre.train import resume, train
from test_train import FAMILY, assert_same_runs, count, stop_at, stopped_run, told

OTHER = {"n_train": 3, "n_test": 2, "horizon": 4}  # the same observations and actions, other tasks


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Two seeds, each with weights of its own."""
    return count(tmp_path_factory.mktemp("taught") / "run", seeds=[0, 1], vectorise=False)


def weights(run, seed, at=None):
    return np.asarray(run.params(at, seed))


@pytest.mark.parametrize("vectorise", [False, True])
def test_each_seed_begins_with_its_own(taught, tmp_path, vectorise):
    run = count(tmp_path / "run", seeds=[0, 1], vectorise=vectorise, start_from=taught.path, env_params=OTHER)
    for seed in (0, 1):
        assert np.array_equal(weights(run, seed, 0), weights(taught, seed)) and not np.array_equal(
            weights(run, seed), weights(taught, seed)
        )
    assert run.config["start_from"] == {"run": str(taught.path), "env": "point-robot", "env_steps": [200, 200]}
    assert (
        run.metrics(0)[0]["env_steps"] == 0 and f"--start-from {taught.path}" in (run.path / "command.txt").read_text()
    )


def test_seeds_that_were_one_program_can_be_started_from(tmp_path):
    source = count(tmp_path / "source", seeds=[0, 1], vectorise=True)
    one = count(tmp_path / "one", seed=1, start_from=source.path)
    assert np.array_equal(weights(one, 1, 0), weights(source, 1))
    other = count(tmp_path / "other", seed=7, start_from=source.path / "seed-1")
    assert np.array_equal(weights(other, 7, 0), weights(source, 1))


def test_one_seed_starts_them_all(tmp_path):
    source = count(tmp_path / "source", seed=3)
    run = count(tmp_path / "run", seeds=[4, 5], start_from=source.path)
    assert all(np.array_equal(weights(run, seed, 0), weights(source, 3)) for seed in (4, 5))


def test_a_run_that_is_stopped_needs_the_other_no_more(taught, tmp_path):
    whole = count(tmp_path / "whole", seed=1, start_from=taught.path)
    source = tmp_path / "source"
    shutil.copytree(taught.path, source)
    with pytest.raises(SystemExit):
        count(tmp_path / "run", seed=1, start_from=source, hooks=[stop_at(8)])
    shutil.rmtree(source)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "state")  # as if killed before the first
    resume(tmp_path / "run", progress=False)
    assert_same_runs(whole, runs.open_run(tmp_path / "run"))
    assert told(whole) != told(count(tmp_path / "fresh", seed=1))


def test_the_older_checkpoint_serves_where_the_newest_is_damaged(tmp_path):
    source = stopped_run(tmp_path / "source")  # at 8 gradient steps
    resume(source.path, progress=False)
    before, last = _checkpoints.labels(source.path / runs.STATE)
    (source.path / runs.STATE / str(last) / "files.json").write_text("{")
    assert count(tmp_path / "run", start_from=source.path).config["start_from"]["env_steps"][0] < 200
    (source.path / runs.STATE / str(before) / "files.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged.*nothing to start from"):
        count(tmp_path / "other", start_from=source.path)


def test_what_a_run_keeps_of_another_is_checked(taught, tmp_path):
    with pytest.raises(SystemExit):
        count(tmp_path / "run", start_from=taught.path, hooks=[stop_at(8)])
    run = runs.open_run(tmp_path / "run")
    shutil.rmtree(run.path / "checkpoints" / "state")
    kept = run.path / START / "200"
    file = max((p for p in kept.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged.*start the run anew"):
        resume(run.path, progress=False)


@pytest.mark.parametrize("given, message", [
    ({"start_from": "nowhere"}, "nowhere is not a run"),
    ({"seed": 2}, "has the seeds 0, 1, and each seed starts from its own: seed 2 has none there"),
    ({"size": 2}, r"array weight is float32\[1\] where float32\[2\] is expected.*give the settings that it was trained with"),
    ({"family": "cheetah-vel", "env_params": None, "env_steps": 100_000},
     "trained on point-robot with 2 numbers observed and 2 numbers per action, cheetah-vel has 20 .* and 6 numbers per action"),
])  # fmt: skip
def test_what_cannot_be_started_from(taught, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        count(tmp_path / "run", **{"start_from": taught.path, **given})
    assert not (tmp_path / "run").exists()


def test_an_algorithm_that_extends_another_starts_from_its_runs(tmp_path):
    small = {"env_steps": 400, "tasks_per_iteration": 2, "episodes_per_step": 2, "progress": False}
    params = {"n_train": 4, "n_test": 3, "horizon": 10}
    agent = train("maml", "point-robot", out=tmp_path / "source", env_params=params, **small)
    train("e-maml", "point-robot", out=tmp_path / "run", env_params=params, start_from=tmp_path / "source", **small)
    first = runs.open_run(tmp_path / "run").params(0)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, agent.params)))


def test_other_algorithms_and_runs_without_a_checkpoint(taught, tmp_path):
    with pytest.raises(UserError, match=r"pearl cannot start from .*, a run of Counting: only from its own kind"):
        train("pearl", "point-robot", out=tmp_path / "run", env_params=FAMILY, start_from=taught.path)
    with pytest.raises(UserError, match="teacher cannot start from a run"):
        train("teacher", "pendulum", out=tmp_path / "run", start_from=taught.path)
    empty = tmp_path / "empty"
    shutil.copytree(taught.path, empty)
    shutil.rmtree(empty / "seed-0" / "checkpoints")
    with pytest.raises(UserError, match=r"holds no checkpoint yet.*nothing to start from"):
        count(tmp_path / "run", start_from=empty)
    assert not (tmp_path / "run").exists()


def test_the_report_says_so(taught, tmp_path):
    run = count(tmp_path / "run", start_from=taught.path)
    page = report.write([run.path]).read_text()
    assert "starts from what point-robot taught in 200 env steps" in page


@pytest.mark.parametrize("algorithm, family, other", [
    ("rl2", "grid-navi", {}), ("varibad", "grid-navi", {}), ("pearl", "grid-navi", {}), ("maml", "point-robot", {"horizon": 15}),
    ("promp", "point-robot", {}), ("maesn", "point-robot", {}),
])  # fmt: skip
def test_agents_act_as_they_did(tmp_path, algorithm, family, other):
    """Before the first gradient step the new run's agent is the old one's."""
    small = {
        "pearl": {"initial_steps": 60, "initial_updates": 4, "updates_per_iteration": 4, "updates_per_slice": 4},
        "rl2": {"tasks_per_iteration": 16}, "varibad": {"tasks_per_iteration": 16},
    }.get(algorithm, {"tasks_per_iteration": 4, "episodes_per_step": 2})  # fmt: skip
    env_params = {"n_train": 4, "n_test": 3, "horizon": 10} if family == "point-robot" else {}
    options = {"env_steps": 1300, "eval_every": 10**9, "progress": False, **small}
    source = train(algorithm, family, out=tmp_path / "source", env_params=env_params, **options)
    train(algorithm, family, out=tmp_path / "run", env_params=env_params, start_from=tmp_path / "source", **options)
    first, last = runs.open_run(tmp_path / "run"), runs.open_run(tmp_path / "source")
    assert np.array_equal(first.evaluation(0)["returns"], last.evaluation(last.newest())["returns"])
    if other:
        run = train(algorithm, family, out=tmp_path / "other", env_params=env_params | other, start_from=tmp_path / "source",
                    **options)  # fmt: skip
        assert run.env.spec.horizon == other["horizon"] and source.env.spec.horizon == 10
    assert json.loads((tmp_path / "run" / "config.json").read_text())["start_from"]["env"] == family
    assert nacre.load(tmp_path / "run").env_steps >= 1300
