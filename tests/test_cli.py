"""The command line: what it prints, its exit codes, and processes that are killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from nacre import _cli_train, _doctor, cli, runs
from nacre._errors import UserError

TINY = """--hidden 8 --encoder-hidden 8 --meta-batch 2 --batch-size 4 --context-batch 6 --initial-steps 10
--tasks-per-iteration 2 --prior-steps 10 --extra-steps 10 --updates-per-iteration 100 --updates-per-slice 10
--env.horizon 10 --env.n-train 3 --env.n-test 3 --env-steps 1_000 --eval-every 250""".split()
POINT, CHEETAH = ["point-robot", *TINY], ["cheetah-vel", *TINY]


def nacre(capsys, *words):
    """-> exit code, standard output, standard error."""
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


UNMEASURED = """import sys
from nacre import _cli_train, cli
_cli_train.finish = lambda *args, **options: None
sys.exit(cli.main())"""


def start(*words, measure=True):
    """A process; one that does not measure what it trained ends some seconds earlier."""
    code = ["-m", "nacre"] if measure else ["-c", UNMEASURED]
    command = [sys.executable, *code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ----------------------------------------------------------------------------------------------------- help, lists


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"], ["train", "--help"], ["--version"]])
def test_help_and_lists_import_no_jax(words):
    code = "import sys; from nacre import cli; assert cli.main(sys.argv[1:]) == 0 and 'jax' not in sys.modules"
    times = []
    for _ in range(3):
        begin = os.times()  # of the processor: others may be at work
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
        end = os.times()
        times.append(end.children_user + end.children_system - begin.children_user - begin.children_system)
    assert min(times) < 0.5 or words[0] == "train"  # train's help imports tyro


def test_lists(capsys):
    code, out, _ = nacre(capsys, "list")
    assert code == 0 and "pearl" in out and "cheetah-vel" in out and "gymnasium/<id>" in out
    code, out, err = nacre(capsys, "list", "--json")
    found = json.loads(out)
    assert code == 0 and err == "" and found["schema"] == 1
    assert "pearl" in [entry["name"] for entry in found["algorithms"]]
    assert {"name", "summary"} == set(found["families"][0])


def test_help_of_train_shows_every_option_with_its_default(capsys):
    code, out, _ = nacre(capsys, "train", "pearl", "sparse-point-robot", "--help")
    text = re.sub(r"[│╭╰─\s]+", " ", out)
    assert code == 0
    shown = "--latent-size|dimensions of z (default: 3)|--env-steps|--env.train-on-sparse|--seeds|--preset {fast,paper}"
    for words in f"{shown}|learn from the sparse reward|--eval-every|--out|--resume".split("|"):
        assert words in text
    paper = nacre(capsys, "train", "pearl", "sparse-point-robot", "--preset", "paper", "--help")[1]
    assert "(default: 1024)" in paper and "(default: 1024)" not in out  # the paper's context batch


def test_the_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NACRE_CACHE_DIR", "/dev/null/cache")

    def no_opengl():
        raise _doctor.TroubleError("no OpenGL: install EGL")

    monkeypatch.setattr(_doctor, "opengl", no_opengl)
    code, out, _ = nacre(capsys, "doctor")
    assert code == 0 and "training works here" in out
    for words in (
        "jax",
        "cores may be used",
        "limited cache: compiled programs",
        "limited OpenGL: no OpenGL: install EGL",
    ):
        assert words in out


def test_the_doctor_removes_programs_that_were_not_written_to_their_end(monkeypatch, tmp_path):
    monkeypatch.setenv("NACRE_CACHE_DIR", str(tmp_path))
    whole = zlib.compress(b"a program" * 100)
    contents = {
        "whole-cache": whole,
        "cut-cache": whole[:-3],
        "now-cache": whole[:-3],
        "zstd-cache": b"\x28\xb5\x2f\xfd",
        "else": b"",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        if name != "now-cache":
            os.utime(tmp_path / name, (0, 0))
    assert "5 files" in (told := _doctor.cache()) and "1 damaged removed" in told
    assert {path.name for path in tmp_path.iterdir()} == contents.keys() - {"cut-cache"}
    assert "damaged" not in _doctor.cache()


@pytest.mark.parametrize("versions, said", [
    ({"mujoco": "3.17.0"}, "not installed; mjx .* not installed"),
    ({"mujoco": "3.3.0", "metaworld": "3.1.1"}, "metaworld .*: 3.1.1"),
    ({"mujoco": "3.17.0", "mujoco-mjx": "3.17.0"}, "mjx .*: 3.17.0"),
    ({"mujoco": "3.17.0", "metaworld": "3.1.1"}, "made for MuJoCo 3.3.0, its rewards differ with 3.17.0"),
    ({"mujoco": "3.17.0", "mujoco-mjx": "3.16.0"}, "MJX 3.16.0 and MuJoCo 3.17.0 must be of one version"),
])  # fmt: skip
def test_the_doctor_looks_at_extras(monkeypatch, versions, said):
    monkeypatch.setattr(_doctor._platform, "version", versions.get)
    try:
        found = _doctor.extras()
    except _doctor.TroubleError as trouble:
        found = str(trouble)
    assert re.search(said, found)


def test_the_doctor_finds_what_is_broken(capsys, monkeypatch):
    monkeypatch.setattr(_doctor, "NEEDED", ("json", "no_such_package"))
    monkeypatch.setattr(_doctor, "opengl", lambda: "not looked at")
    code, out, _ = nacre(capsys, "doctor")
    assert code == 1 and "BROKEN  packages: cannot import no_such_package" in out and "pip install" in out


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("words, message", [
    ([], "usage: nacre COMMAND"),
    (["trian"], "unknown command 'trian'. Did you mean train"),
    (["train"], "usage: nacre train"),
    (["train", "perl", "point-robot"], "unknown algorithm 'perl'. Did you mean pearl"),
    (["train", "nosuch:Thing", "point-robot"], "cannot be imported.*nosuch"),
    (["train", "pearl"], "which task family.*point-robot"),
    (["train", "--seed", "0"], "expected ALGORITHM FAMILY before the options"),
    (["train", "pearl", "point-robt"], "unknown task family 'point-robt'. Did you mean point-robot"),
    (["train", "pearl", "point-robot", "--preset", "papr"], "unknown preset 'papr'. Did you mean paper"),
    (["train", "pearl", "gymnasium/CartPole-v1", "--preset", "paper"], "no paper preset for.*--preset fast"),
    (["train", "pearl", "point-robot", "--hiden", "3"], "Unrecognized options: --hiden.*--hidden"),
    (["train", "pearl", "point-robot", "--env.horizn", "3"], "--env.horizon"),
    (["train", "pearl", "point-robot", "--batch-size", "abc"], "--batch-size.*'abc'"),
    (["train", "pearl", "point-robot", "--latent", "gaussean"], "'gaussean'.*'gaussian'"),
    (["train", "pearl", "point-robot", "--discount", "3"], "discount must lie in .*got 3.0"),
    (["train", "pearl", "point-robot", "--env.horizon", "0"], "horizon must be at least 1, got 0"),
    (["train", "varibad", "grid-navi", "--preset", "paper", "--env-steps", "5000"], "first collection of varibad.*6720"),
    (["train", "pearl", "point-robot", "--env-steps", "10"], "first collection of pearl.*--env-steps 16000"),
    (["train", "pearl", "point-robot", "--env-steps", "0"], "env_steps must be positive and finite, got 0"),
    (["train", "pearl", "point-robot", "--seeds", "0", "0"], "seed 0 is given more than once"),
    (["train", "pearl", "point-robot", "--seed", "1", "--seeds", "0", "1"], "not both"),
    (["train", "pearl", "point-robot", "--out", "/dev/null/run"], "cannot be (written|read).*--out"),
    (["train", "pearl", "nowhere.py:family"], "there is no file nowhere.py"),
    (["train", "--resume"], "--resume needs the directory of a run"),
    (["train", "--resume", "nowhere"], "nowhere is not a run"),
    (["evaluate", "nowhere"], "nowhere is not a run"),
    (["evaluate"], "the following arguments are required: RUN"),
    (["evaluate", "nowhere", "--split", "tset"], "invalid choice: 'tset'"),
    (["report", "nowhere"], "nowhere"),
    (["watch", "nowhere"], "nowhere"),
    (["check-env", "point-robt"], "Did you mean point-robot"),
    (["check-env", "point-robot", "--env.horizn", "3"], "--env.horizon"),
    (["check-env", "ant-dir", "--backend=gpu"], "invalid choice 'gpu' for argument '--env.backend'"),
    (["train", "pearl", "ant-dir", "--backend", "gpu"], "invalid choice 'gpu' for argument '--env.backend'"),
])  # fmt: skip
def test_mistakes(capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = nacre(capsys, *words)
    assert code == 2 and out == "" and "Traceback" not in err
    assert re.search(message, re.sub(r"[│╭╰─\s]+", " ", err))
    assert not list(tmp_path.iterdir())


BROKEN = """
import dataclasses
from nacre.envs.point_robot import PointRobot

@dataclasses.dataclass(frozen=True)
class Broken(PointRobot):
    def reset(self, key, tasks):
        state, obs = super().reset(key, tasks)
        return state, obs[:, :1]
"""


def test_check_env(capsys, tmp_path):
    code, out, _ = nacre(capsys, "check-env", "point-robot", "--env.n-train", "4")
    assert code == 0 and "keeps the contract" in out
    (tmp_path / "mine.py").write_text(BROKEN)
    code, out, err = nacre(capsys, "check-env", f"{tmp_path}/mine.py:Broken")
    assert code == 2 and "the observation of reset has shape (6, 1)" in out and "what to do" in out
    assert "violation" in err and "Traceback" not in err
    code, _, err = nacre(capsys, "train", "pearl", f"{tmp_path}/mine.py:Broken", "--out", tmp_path / "run")
    assert code == 2 and "is not a task family: the observation of reset" in err and not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by the command line; -> its path, its standard output and error."""
    path = tmp_path_factory.mktemp("trained") / "run"
    process = start("train", "pearl", *POINT, "--checkpoint-seconds", "0.05", "--out", path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return path, out, err


def test_train_tells_what_came_out(trained):
    path, out, err = trained
    for words in ("shot", "random", "still", "oracle", "no adaptation", f"report: {path}/report.html", f"run: {path}"):
        assert words in out
    assert "compiling train ..." in err and "test shots" in err and "training pearl on point-robot" in err
    run = runs.open_run(path)
    assert run.config["config"]["hidden"] == [8] and run.config["loop"]["env_steps"] == 1000
    assert (path / "command.txt").read_text().startswith("nacre train pearl point-robot --hidden 8")
    assert json.loads((path / "result.json").read_text())["algorithm"] == "pearl"
    assert "<html" in (path / "report.html").read_text()


def test_evaluate_prints_one_json_object(trained, capsys):
    path = trained[0]
    words = ["evaluate", path, "--json"]
    code, out, _ = nacre(capsys, *words)
    found = json.loads(out)
    assert code == 0 and found["schema"] == 1 and len(found["shots"]) == 3 and found["repetitions"] == 10
    assert found == json.loads((path / "result.json").read_text())
    fields = "algorithm env preset seeds env_steps split deterministic repetitions shots intervals per_task task_params"
    assert {*fields.split(), "trial_return", "references"} <= found.keys()
    assert nacre(capsys, *words)[1] == out  # the same every time
    code, out, _ = nacre(capsys, "evaluate", path, "--split", "train", "--checkpoint", 0)
    assert code == 0 and "3 train tasks x 10 trials" in out


@pytest.mark.parametrize("words, message", [
    (["evaluate", "{run}", "--checkpoint", "77"], "has no checkpoint 77.* It has 0, "),
    (["evaluate", "{run}", "--episodes", "0"], "episodes must be at least 1"),
    (["evaluate", "{run}/seed-3"], "has no seed '3'"),
    (["evaluate", "{run}", "--save", "--explore"], "--save is for a whole run .*leave .*--explore"),
    (["train", "--resume", "{run}"], r"is finished: it reached its 1,000 env steps.*--env-steps \d+ or more"),
    (["train", "--resume", "{run}", "--env-steps", "900"], "can only be raised"),
    (["train", "--resume", "{run}", "--hidden", "9"], r"another hidden \(9,\) \(the run has \(8,\)\)"),
    (["train", "--resume", "{run}", "--seed", "3", "--preset", "paper"], "preset 'paper'.*another seed 3"),
    (["train", "--resume", "{run}", "--env.horizon", "9"], r"env\.horizon 9 \(the run has 10\)"),
    (["train", "pearl", "cheetah-vel", "--resume", "{run}"], "another env cheetah-vel .the run has point-robot"),
    (["train", "pearl", *POINT, "--out", "{run}"], "holds a run already.*--resume"),
])  # fmt: skip
def test_mistakes_with_a_run(trained, capsys, words, message):
    code, out, err = nacre(capsys, *(word.format(run=trained[0]) for word in words))
    assert code == 2 and out == "" and "Traceback" not in err
    assert re.search(message, err)


@pytest.mark.parametrize(("words", "asked"), [
    ([], (None, False)), (["--env-steps", "1000"], (1000, False)), (["--env-steps=1000", "--quiet"], (1000, True)),
    (["--env_steps", "2_000"], (2000, False)), (["point-robot"], None),
])  # fmt: skip
def test_env_steps_that_the_run_has_are_asked_for_too(trained, words, asked):
    """A run that ended by its minutes goes on to the env steps that it was begun with."""
    run = runs.open_run(trained[0])
    if asked is None:
        with pytest.raises(UserError, match="another algorithm"):
            _cli_train.same_settings(run, words)
    else:
        assert _cli_train.same_settings(run, words) == asked


def test_a_run_that_was_cut_off_while_it_was_measured_is_measured(trained, capsys):
    file = trained[0] / "result.json"
    before = file.read_text()
    file.unlink()
    code, out, err = nacre(capsys, "train", "--resume", trained[0])
    assert code == 0 and "its measurement is missing" in err and "report: " in out
    assert file.read_text() == before
    told = json.loads(before)
    for broken in ("", json.dumps(told | {"env_steps": told["env_steps"] - 1})):  # by a kill; from before it went on
        file.write_text(broken)
        assert nacre(capsys, "train", "--resume", trained[0])[0] == 0
        assert file.read_text() == before


def test_damaged_params_offer_the_checkpoint_before(trained, capsys):
    run = runs.open_run(trained[0])
    before, last = run.checkpoints()[-2:]
    file = run.path / runs.PARAMS / str(last) / "files.json"
    text = file.read_text()
    file.write_text("{")
    code, _, err = nacre(capsys, "evaluate", run.path)
    file.write_text(text)
    assert code == 2 and f"{last} is damaged" in err and f"--checkpoint {before}" in err


# ------------------------------------------------------------------------------------------------ killed and resumed


def wait_for(condition, process, seconds=120):
    """Until the condition holds or the process is over."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def saved(run):
    """Whether the run has a checkpoint of its state."""
    return any(path.name.isdigit() and path.name != "0" for path in (run / runs.STATE).glob("*"))


def timeless(run):
    lines = run.metrics()
    for line in lines:
        line["metrics"] = {name: value for name, value in line["metrics"].items() if not name.startswith("rate/")}
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]


def kill_and_resume(path, family):
    """A run that was killed after its first checkpoint and then finished."""
    killed = start("train", "pearl", *family, "--checkpoint-seconds", "0.05", "--quiet", "--out", path, measure=False)
    wait_for(lambda: saved(path), killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it was over before it could be killed"
    again = start("train", "--resume", path, "--quiet", measure=False)
    _, err = again.communicate()
    assert again.returncode == 0, err
    return runs.open_run(path)


@pytest.mark.parametrize("family", [POINT, CHEETAH], ids=["jax", "mujoco"])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, family, trained):
    path = trained[0]
    if family is CHEETAH:
        path = tmp_path / "whole"
        assert (
            start(
                "train", "pearl", *family, "--checkpoint-seconds", "0.05", "--quiet", "--out", path, measure=False
            ).wait()
            == 0
        )
    a, b = runs.open_run(path), kill_and_resume(tmp_path / "killed", family)
    assert timeless(a) == timeless(b) and a.checkpoints() == b.checkpoints() and a.evaluations() == b.evaluations()
    for steps in a.checkpoints():
        one, other = runs._checkpoints.to_host(a.params(steps)), runs._checkpoints.to_host(b.params(steps))
        assert all(np.array_equal(one[name], other[name]) for name in one)
    for steps in a.evaluations():
        one, other = a.evaluation(steps), b.evaluation(steps)
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_what_was_done(tmp_path, number, code):
    run = tmp_path / "run"
    process = start("train", "pearl", *POINT, "--checkpoint-seconds", "1000", "--out", run)

    def collects():
        file = run / "metrics.jsonl"
        return file.is_file() and '"collect/return_posterior"' in file.read_text()

    wait_for(collects, process)
    begin = time.monotonic()
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)  # as `timeout` and impatient users do
    _, err = process.communicate()
    assert process.returncode == code and time.monotonic() - begin < 15
    assert f"go on with: nacre train --resume {run}" in err and "Traceback" not in err
    assert saved(run)


def test_a_signal_before_training_ends_at_once(tmp_path):
    process = start("train", "pearl", *POINT, "--out", tmp_path / "run")
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode in (143, -signal.SIGTERM) and "Traceback" not in err


def test_the_command_of_a_python_run_can_be_typed(tmp_path):
    from nacre import _cli_train
    from nacre._settings import make_plan

    values = {"hidden": (8, 9), "bottleneck": False, "env_steps": 190_000, "target_entropy": None}
    params = {"train_on_sparse": True, "n_test": 7}
    plan = make_plan("pearl", "sparse-point-robot", seeds=(1, 2), env_params=params, values=values)
    words = shlex.split(plan.command)
    assert words[:4] == ["nacre", "train", "pearl", "sparse-point-robot"]
    given = _cli_train.parse("pearl", "sparse-point-robot", words[4:], "fast")
    alone, before = (
        _cli_train.parse("pearl", "sparse-point-robot", [*words[4:], *more], "fast").values["vectorise"]
        for more in (["--vectorise"], ["--no-vectorise", "--env.horizon", "9"])
    )
    assert alone is True and before is False
    assert given.options.seeds == (1, 2) and given.env_params == {"train_on_sparse": True, "n_test": 7}
    assert given.values == {"hidden": (8, 9), "bottleneck": False, "env_steps": 190_000}


def test_module_runs_as_a_script():
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-m", "nacre", "list"], capture_output=True, env=environ, check=False)
    assert done.returncode == 0 and b"pearl" in done.stdout and Path(sys.executable).exists()
