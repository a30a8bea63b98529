"""The training loop: what it leaves behind, and that stopping it changes nothing.

Most tests use an algorithm that does nearly nothing (counting.py), so that they are about the loop.
"""

import dataclasses
import io
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import nacre
from counting import Config, Counting
from nacre import RunError, UserError, _checkpoints, _cli_train, _loop, _memory, _progress, _records, runs
from nacre._signals import Stopped
from nacre.envs.point_robot import PointRobot
from nacre.train import LoopConfig, go_on, resume, train

FAMILY = {"n_train": 4, "n_test": 3, "horizon": 5}
COLLECTION = 20  # env steps of one slice of collection: 4 tasks x 5 steps
COUNTING = "counting:Counting"


def count(out, env_steps=200, **more):
    """A short run; -> the opened run."""
    options = {"env_params": FAMILY, "progress": False, "eval_every": 60, **more}
    train(COUNTING, options.pop("family", "point-robot"), out=out, env_steps=env_steps, **options)
    return runs.open_run(out)


def told(run, seed=None):
    """Lines of metrics without what the clock says."""

    def timeless(line):
        metrics = {name: value for name, value in line["metrics"].items() if not name.startswith("rate/")}
        return {"kind": line["kind"], "env_steps": line["env_steps"], "updates": line["updates"], "metrics": metrics}

    return [timeless(line) for line in run.metrics(seed)]


def assert_same_runs(a, b):
    """The same lines, evaluations and parameters, bit by bit."""
    for seed in a.seeds:
        assert told(a, seed) == told(b, seed)
        assert a.checkpoints(seed) == b.checkpoints(seed) and a.evaluations(seed) == b.evaluations(seed)
        for steps in a.checkpoints(seed):
            assert np.array_equal(a.params(steps, seed), b.params(steps, seed))
        for steps in a.evaluations(seed):
            one, other = a.evaluation(steps, seed), b.evaluation(steps, seed)
            assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def stop_at(updates, how=Stopped):
    """A hook that stops the run once, in the evaluation at or after so many gradient steps."""
    left = [how]

    def hook(event):
        if event.updates >= updates and left:
            raise left.pop()(15)
        return {}

    return hook


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return count(tmp_path_factory.mktemp("whole") / "run")


# ----------------------------------------------------------------------------------------------- what a run leaves


def test_files_of_a_run(whole):
    path = whole.path
    config = json.loads((path / "config.json").read_text())
    assert config["schema"] == 1 and config["algorithm"] == COUNTING and config["env"] == "point-robot"
    assert config["env_params"] == {"n_train": 4, "n_test": 3, "horizon": 5}  # every value, given or not
    assert config["config"] == {"scale": 1.0, "bad_after": 0, "size": 1, "style": "plain"}
    assert config["loop"]["env_steps"] == 200 and config["loop"]["eval_every"] == 60
    assert config["loop"]["eval_episodes"] == 3 and config["seeds"] == [0] and config["spec"]["horizon"] == 5
    versions = json.loads((path / "versions.json").read_text())
    assert versions["packages"]["jax"] and versions["devices"] and versions["python"]
    command = (path / "command.txt").read_text()
    assert (
        command.startswith(f"nacre train {COUNTING} point-robot --preset fast --seed 0")
        and "--env.n-train 4" in command
    )
    assert list(path.glob("events.out.tfevents.*"))
    assert not [p for p in path.rglob("*") if p.suffix in (".pkl", ".pickle", ".part")]


def test_evaluations_of_some_test_tasks(tmp_path):
    run = count(tmp_path / "run", eval_tasks=2)
    assert {len(run.evaluation(at)["tasks/0"]) for at in run.evaluations()} == {2}
    held_out = np.asarray(run.env.test_tasks)
    assert np.array_equal(run.evaluation(run.evaluations()[-1])["tasks/0"], held_out[[0, 1]])
    out = io.StringIO()
    _cli_train.finish(run, out)  # what ends `nacre train`
    assert "2 test tasks" in out.getvalue() and "report:" in out.getvalue()


def test_lines_of_metrics(whole):
    lines = whole.metrics()
    train_lines = whole.metrics(kind="train")
    assert [line["env_steps"] for line in train_lines if "collect/return" in line["metrics"]] == list(
        range(20, 201, 20)
    )
    assert all(np.isfinite(list(line["metrics"].values())).all() for line in lines)
    assert all(line["metrics"]["rate/updates"] > 0 for line in train_lines if "loss/walk" in line["metrics"])
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds) and lines[-1]["evaluation_seconds"] > 0
    assert lines[-1]["kind"] == "evaluation" and lines[-1]["updates"] == 20  # learnt from all that was collected


def test_evaluations_and_params(whole):
    assert whole.evaluations() == whole.checkpoints() == [0, 60, 120, 180, 200]
    lines = whole.metrics(kind="evaluation")
    assert [line["env_steps"] for line in lines] == whole.evaluations()
    returns = whole.evaluation(200)["returns"]
    assert returns.shape == (1, 3, 3)
    assert lines[-1]["metrics"]["return/shot_2"] == pytest.approx(returns[0, :, 2].mean(), rel=1e-6)
    assert lines[-1]["metrics"]["evaluation/env_steps"] == 3 * 3 * 5
    again = nacre.evaluate(whole, repetitions=1)  # a curve's points are what `nacre evaluate` gives
    assert again.shots == pytest.approx(returns.mean(axis=(0, 1)).tolist(), rel=1e-6)
    assert not np.array_equal(whole.params(0), whole.params())
    with pytest.raises(UserError, match=r"has no checkpoint 7.* It has 0, 60, 120, 180, 200"):
        whole.params(7)


def test_the_agent_is_returned_and_loads(tmp_path):
    agent = train(COUNTING, "point-robot", out=tmp_path / "run", env_steps=40, env_params=FAMILY, progress=False)
    assert agent.env_steps == 40 and agent.seed == 0 and agent.env == PointRobot(**FAMILY)
    assert np.array_equal(nacre.load(tmp_path / "run").params, agent.params)
    assert len(nacre.evaluate(agent, episodes=2, repetitions=1).shots) == 2


def test_the_seed_decides(whole, tmp_path):
    assert_same_runs(whole, count(tmp_path / "same"))
    assert told(count(tmp_path / "other", seed=1)) != told(whole)


def test_hooks_join_the_line(tmp_path):
    seen = []

    def spread(event):
        seen.append(event)
        return {"return/spread": event.shots.returns[0, :, -1].std()}

    run = count(tmp_path / "run", hooks=[spread])
    assert all("return/spread" in line["metrics"] for line in run.metrics(kind="evaluation"))
    last = seen[-1]
    assert last.env_steps == 200 and last.seed == 0 and last.run == run.path and "return/shot_0" in last.metrics
    assert np.array_equal(last.params, run.params())


def test_progress_without_a_terminal(tmp_path, capsys):
    count(tmp_path / "run", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    for words in ("training Counting on point-robot, seed 0", "compiling learn ...", "test shots"):
        assert words in err
    count(tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_a_long_measurement_says_what_it_is_at(tmp_path, capsys, monkeypatch):
    run = count(tmp_path / "run", progress=False)
    nacre.evaluate(run, tell=_progress.Measuring())
    assert capsys.readouterr().err.splitlines() == ["measuring on the test tasks ..."]
    monkeypatch.setattr(_progress, "LINE_SECONDS", -1.0)
    nacre.evaluate(run, tell=_progress.Measuring("train"))
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "measuring on the train tasks ..." and rest[0] == "measuring the agent without adaptation ..."
    assert rest[1:] == [
        f"measuring {who} ..." for who in ("random actions", "the zero action", "the oracle", "the agent")
    ]


def test_a_trained_run_without_its_state_is_refused_and_keeps_its_metrics(tmp_path):
    run = count(tmp_path / "run", progress=False)
    before = (run.path / "metrics.jsonl").read_bytes()
    shutil.rmtree(run.path / "checkpoints" / "state")
    with pytest.raises(UserError, match=r"was trained, and the state to go on from .* is not there"):
        resume(run.path, progress=False)
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_minutes_end_a_run_which_goes_on_by_env_steps(tmp_path):
    run = count(tmp_path / "run", env_steps=10_000, minutes=1e-5)
    assert run.metrics()[-1]["env_steps"] <= 40
    with pytest.raises(UserError, match=r"is finished.*--env-steps 10000"):
        resume(run.path, progress=False)
    runs.change_loop(run, minutes=1e-6)  # another limit: not finished by this one, but out of time at once
    resume(run.path, progress=False)
    with pytest.raises(SystemExit):
        resume(run.path, env_steps=10_000, hooks=[stop_at(8)], progress=False)
    assert run.metrics()[-1]["env_steps"] > 40 and runs.open_run(run.path).config["loop"]["minutes"] is None


# ----------------------------------------------------------------------------------------------------- several seeds


def test_seeds_as_one_program(whole, tmp_path):
    run = count(tmp_path / "run", seeds=[0, 7], vectorise=True)
    assert run.config["loop"]["vectorise"] and (run.path / runs.STATE).is_dir()
    assert run.seed_dirs == {0: run.path / "seed-0", 7: run.path / "seed-7"}
    for seed in run.seeds:
        assert run.checkpoints(seed) == whole.checkpoints() and len(run.metrics(seed)) == len(whole.metrics())
    assert np.allclose(run.params(seed=0), whole.params(), atol=1e-6)  # another program, the same random numbers
    one = runs.open_run(run.path / "seed-7")
    assert np.array_equal(one.params(), run.params(seed=7)) and not np.array_equal(one.params(), run.params(seed=0))
    assert len(nacre.evaluate(run, repetitions=1).seeds) == 2
    assert nacre.load(run.path, seed=7).seed == 7


def test_seeds_one_after_another(whole, tmp_path):
    run = count(tmp_path / "run", seeds=[0, 7])  # the default on a CPU
    assert (run.path / "seed-7" / runs.STATE).is_dir() and not (run.path / runs.STATE).exists()
    assert told(run, 0) == told(whole) and np.array_equal(run.params(seed=0), whole.params())


@pytest.mark.parametrize("vectorise", [True, False])
def test_seeds_that_are_stopped_go_on(tmp_path, vectorise):
    options = {"seeds": [3, 4], "vectorise": vectorise}
    undisturbed = count(tmp_path / "a", **options)
    with pytest.raises(SystemExit) as left:
        count(tmp_path / "b", **options, hooks=[stop_at(8)])
    assert left.value.code == 143
    resume(tmp_path / "b", progress=False)
    assert_same_runs(undisturbed, runs.open_run(tmp_path / "b"))


# ----------------------------------------------------------------------------------------------------------- resume


def stopped_run(out, **more):
    with pytest.raises(SystemExit):
        count(out, hooks=[stop_at(8)], **more)
    return runs.open_run(out)


def test_a_stopped_run_goes_on_to_the_same_numbers(whole, tmp_path):
    run = stopped_run(tmp_path / "run")
    assert run.evaluations() == [0, 60]
    resume(run.path, progress=False)
    assert_same_runs(whole, run)
    assert len(json.loads((run.path / "versions.json").read_text())["resumed"]) == 1


def test_a_run_that_was_killed_before_its_first_checkpoint(whole, tmp_path):
    run = stopped_run(tmp_path / "run")
    shutil.rmtree(run.path / "checkpoints" / "state")
    resume(run.path, progress=False)
    assert_same_runs(whole, run)


def two_checkpoints(out):
    """A stopped run with two checkpoints of the state."""
    run = stopped_run(out)
    with pytest.raises(SystemExit):
        resume(run.path, hooks=[stop_at(14)], progress=False)
    labels = _checkpoints.labels(run.path / runs.STATE)
    assert len(labels) == 2
    return run, [run.path / runs.STATE / str(label) for label in labels]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path, capsys):
    run, (before, last) = two_checkpoints(tmp_path / "run")
    file = max((p for p in last.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:-5])
    resume(run.path, progress=False)
    err = capsys.readouterr().err
    assert f"checkpoint {last} is damaged" in err and f"going on from the checkpoint before it, {before}" in err
    assert_same_runs(whole, run)


def test_a_foreign_checkpoint_gives_way_too(whole, tmp_path, capsys):
    run, (_, last) = two_checkpoints(tmp_path / "run")
    other = count(tmp_path / "other", env_params={**FAMILY, "horizon": 6})
    shutil.rmtree(last)
    shutil.copytree(max((other.path / runs.STATE).iterdir()), last)
    resume(run.path, progress=False)
    assert f"checkpoint {last} is foreign: spec" in capsys.readouterr().err
    assert_same_runs(whole, run)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run, (_, last) = two_checkpoints(tmp_path / "run")
    other = count(tmp_path / "other", size=3)
    shutil.rmtree(last)
    shutil.copytree(max((other.path / runs.STATE).iterdir()), last)
    with pytest.raises(UserError, match=r"config\.size is 1, was 3"):
        resume(run.path, progress=False)


def test_nothing_usable_is_an_error(tmp_path):
    run, paths = two_checkpoints(tmp_path / "run")
    for path in paths:
        shutil.rmtree(path / "record")
    with pytest.raises(UserError, match=r"no checkpoint of .*run can be used: .*start a new run"):
        resume(run.path, progress=False)


def test_a_changed_configuration_is_refused(tmp_path):
    run = stopped_run(tmp_path / "run")
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    config["config"]["scale"] = 2.0
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.scale is 2.0, was 1.0"):
        resume(run.path, progress=False)


def test_a_changed_family_is_refused(tmp_path):
    run = stopped_run(tmp_path / "run")
    with pytest.raises(UserError, match="horizon is 6, was 5"):
        resume(run.path, family=PointRobot(4, 3, 6), progress=False)


def test_other_tasks_are_told(tmp_path, capsys):
    run = stopped_run(tmp_path / "run")
    other = PointRobot(4, 2, 5)
    with pytest.warns(UserWarning, match="its tasks are others"):
        nacre.load(run.path, family=other)
    resume(run.path, family=other, progress=False)
    assert "its tasks are others" in capsys.readouterr().err


def test_seeds_of_numpy_are_seeds(tmp_path):
    assert count(tmp_path / "run", seeds=np.arange(1, 3)).seeds == (1, 2)


def test_a_finished_run_says_so(whole, tmp_path):
    with pytest.raises(
        UserError, match=r"is finished: it reached its 200 env steps.*--resume .* --env-steps 201 or more"
    ):
        resume(whole.path, progress=False)
    with pytest.raises(UserError, match="can only be raised: the run has 200, got 100"):
        resume(whole.path, env_steps=100, progress=False)


def test_a_finished_run_is_trained_further(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    run = runs.open_run(tmp_path / "run")
    resume(run.path, env_steps=300, progress=False)
    longer = count(tmp_path / "longer", env_steps=300)
    assert run.metrics()[-1]["env_steps"] == 300 and runs.open_run(run.path).config["loop"]["env_steps"] == 300
    assert np.array_equal(run.params(), longer.params())


def test_two_resumes_at_once(tmp_path):
    run = stopped_run(tmp_path / "run")
    with _records.Lock(run.path), pytest.raises(UserError, match="is being trained by process"):
        resume(run.path, progress=False)


def test_other_versions_are_named(tmp_path, capsys):
    run = stopped_run(tmp_path / "run")
    file = run.path / "versions.json"
    versions = json.loads(file.read_text())
    versions["packages"]["jax"], versions["devices"] = "0.0.1", ["tpu: T"]
    file.write_text(json.dumps(versions))
    resume(run.path, progress=False)
    err = capsys.readouterr().err
    assert "warning" in err and "was 0.0.1" in err and "was 1 x tpu: T" in err and "numbers may differ" in err
    assert run.metrics()[-1]["env_steps"] == 200


def test_ctrl_c_is_a_keyboard_interrupt(tmp_path):
    def hook(event):
        raise Stopped(2)

    with pytest.raises(KeyboardInterrupt):
        count(tmp_path / "run", hooks=[hook])
    assert _checkpoints.labels(tmp_path / "run" / runs.STATE) == [0]


# --------------------------------------------------------------------------------------------------- runs that fail


def test_a_nan_is_named_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoints.Writer, "busy", False)  # do not wait until the disk is ready
    monkeypatch.setattr(_loop, "SAVE_SHARE", float("inf"))
    with pytest.raises(RunError, match=r"loss/walk is nan at env step 60 \(gradient step 6\) of seed 2"):
        count(tmp_path / "run", seed=2, bad_after=5, checkpoint_seconds=1e-9)
    run = runs.open_run(tmp_path / "run")
    assert _checkpoints.labels(run.path / runs.STATE) and np.isfinite(run.params()).all()
    assert run.metrics()[-1]["updates"] == 5


@dataclass(frozen=True)
class NanLater(PointRobot):
    """Rewards are not finite where the policy of the tests drifts to after a few steps."""

    def step(self, state, action, active):
        state, out = super().step(state, action, active)
        far = jnp.abs(out.obs).max(axis=-1) > 1.25
        return state, out._replace(reward=jnp.where(far, jnp.nan, out.reward))


def test_nan_rewards_stop_a_run(tmp_path):
    family = NanLater(40, 3, 5)
    with pytest.raises(RunError, match=r"(collect/return|return of episode).* is nan"):
        count(tmp_path / "run", family=family, env_params=None, env_steps=2000)


def test_a_full_disk(tmp_path, monkeypatch):
    def full(self, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_records.Records, "write", full)
    monkeypatch.setattr(_records.Records, "close", lambda self: full(self, {}))  # which has something to flush
    with pytest.raises(RunError, match=r"No space left on device; what was written before.*--resume"):
        count(tmp_path / "run")


def test_a_file_that_the_environment_misses_is_not_ours(tmp_path):
    def hook(event):
        raise FileNotFoundError(2, "No such file", "robot.xml")

    with pytest.raises(RunError, match=r"robot.xml.*where it came from stands in .*error.txt"):
        count(tmp_path / "run", hooks=[hook])


def test_a_disk_too_full_for_checkpoints(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_checkpoints, "_orbax_save", full)
    with pytest.raises(RunError, match=r"cannot write the checkpoint .*No space left on device"):
        count(tmp_path / "run")


def test_a_vanished_directory(tmp_path):
    def hook(event):
        if event.updates:
            event.run.rename(tmp_path / "elsewhere")  # at once; deleting would race with the writer
        return {}

    with pytest.raises(RunError, match=r"gone|No such file"):
        count(tmp_path / "run", hooks=[hook])


def test_an_unexpected_error_leaves_its_traceback(tmp_path):
    def hook(event):
        raise ZeroDivisionError("my own mistake")

    with pytest.raises(ZeroDivisionError):
        count(tmp_path / "run", hooks=[hook])
    assert "my own mistake" in (tmp_path / "run" / "error.txt").read_text()


# --------------------------------------------------------------------------------------------------------- bad input


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    """Counting's state is 4 bytes per env step of the run."""
    monkeypatch.setattr(_memory, "memory", lambda: (10 * 2**20, "this machine"))
    with pytest.raises(
        UserError, match=r"holds 0.0 GiB, 0.0 GiB of it memory, and this machine has.*fewer --env-steps"
    ):
        count(tmp_path / "run", env_steps=3 * 2**20)
    assert not (tmp_path / "run").exists()
    env = PointRobot()
    algorithm = Counting(Config(), env.spec)
    with pytest.warns(UserWarning, match="a checkpoint copies it"):
        _memory.check_memory(algorithm, env, 2 * 2**20, 1)
    with pytest.raises(UserError):
        _memory.check_memory(algorithm, env, 2 * 2**20, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _memory.check_memory(algorithm, env, 2**20, 1)
    monkeypatch.undo()
    room, where = _memory.memory()
    assert 2**28 < room < 2**50 and where == "this machine"


@dataclass(frozen=True)
class WrongShape(PointRobot):
    def reset(self, key, tasks):
        state, obs = super().reset(key, tasks)
        return state, jnp.concatenate([obs, obs], axis=-1)


@pytest.mark.parametrize("given, message", [
    ({"seeds": [0, 0]}, "seed 0 is given more than once"),
    ({"seeds": []}, "at least one seed"),
    ({"seeds": 3}, "seeds must be several whole numbers, .* got 3; one alone is seed=3"),
    ({"hooks": 3}, "hooks must be functions of an Evaluation, got 3"),
    ({"hooks": [None]}, "hooks must be functions of an Evaluation, got None"),
    ({"env_params": 3}, "env_params must be a dict of the family's parameters, got 3"),
    ({"preset": None}, "unknown preset 'None'. Known: fast, paper"),
    ({"seed": -1}, "whole number from 0 to"),
    ({"seed": 1, "seeds": [0, 1]}, "not both"),
    ({"env_steps": 19}, "the first collection of counting:Counting on point-robot alone takes 20"),
    ({"env_steps": 2**31}, r"below 2\^31"),
    ({"env_steps": "many"}, "env_steps must be a whole number, got 'many'"),
    ({"minutes": 0.0}, "minutes must be positive"),
    ({"scale": "big"}, "scale must be a number, got 'big'"),
    ({"scal": 1.0}, "unknown setting of counting:Counting 'scal'. Did you mean scale"),
    ({"preset": "slow"}, "unknown preset 'slow'"),
    ({"env_params": {"horizn": 3}}, "Did you mean horizon"),
    ({"env_params": {"horizon": 0}}, "horizon must be at least 1"),
    ({"family": "point-robt", "env_params": None}, "Did you mean point-robot"),
    ({"family": WrongShape(4, 3, 5), "env_params": None}, r"the observation of reset has shape \(6, 4\)"),
    ({"family": PointRobot(4, 3, 5)}, "env_params go with a family's name"),
    ({"family": 3, "env_params": None}, "expected a family's name or an Environment, got 3"),
])  # fmt: skip
def test_bad_values(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        count(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_unknown_algorithms(tmp_path):
    with pytest.raises(ValueError, match=r"unknown algorithm 'perl'. Did you mean pearl"):
        train("perl", "point-robot", out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected an algorithm's name, such as 'pearl', .* got None"):
        train(None, "point-robot", out=tmp_path / "run")
    with pytest.raises(ValueError, match="expected the path of a run directory, got None"):
        resume(None)
    with pytest.raises(ValueError, match=r"cannot be imported: .*nowhere"):
        train("nowhere:Algorithm", "point-robot", out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"PEARL has no paper preset for 'gymnasium/CartPole-v1'"):
        train("pearl", "gymnasium/CartPole-v1", preset="paper", out=tmp_path / "run")
    with pytest.raises(ValueError, match="stepped on the host"):
        train(COUNTING, "gymnasium/CartPole-v1", out=tmp_path / "run", vectorise=True, seeds=[0, 1])


@dataclass(frozen=True)
class OwnFamily(PointRobot):
    """Not a registered one."""


def test_an_algorithm_and_a_family_as_objects(tmp_path):
    from counting import Config, Counting

    family = OwnFamily(4, 3, 5)
    algorithm = Counting(Config(scale=0.0), family.spec)
    train(algorithm, family, out=tmp_path / "run", env_steps=20, progress=False)
    run = runs.open_run(tmp_path / "run", family)
    assert run.algorithm == algorithm and run.preset is None and run.config["env_from"] == "object"
    with pytest.raises(UserError, match="family="):
        runs.open_run(tmp_path / "run").params()
    with pytest.raises(UserError, match="scale: set this in the Config"):
        train(algorithm, family, out=tmp_path / "other", scale=2.0)
    with pytest.raises(UserError, match="the algorithm was made for"):
        train(algorithm, PointRobot(4, 3, 7), out=tmp_path / "other")


def test_loop_config_has_no_name_in_common_with_algorithms():
    from nacre.algorithms import registry

    loop = {f.name for f in dataclasses.fields(LoopConfig)}
    for name in registry.ALGORITHMS:
        assert not loop & {f.name for f in dataclasses.fields(registry.config_class(name))}


def test_keys_of_different_purposes_differ():
    import jax

    keys = [jax.random.key_data(_loop.fold(jax.random.key(0), name)).tolist() for name in ("init", "slices", "collect")]
    assert len({tuple(key) for key in keys}) == 3


def test_the_package_is_lazy_and_callable():
    import nacre.train as module

    assert module is nacre.train and callable(nacre.train) and nacre.train.resume is nacre.resume
    assert {"train", "load", "evaluate", "make", "family", "check_env"} <= set(dir(nacre))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = nacre.trian
    assert go_on is nacre.train.go_on and Path(nacre.__file__).name == "__init__.py"
