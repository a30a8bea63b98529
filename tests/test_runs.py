"""The run directory: checkpoints, records, the lock, and how a run is found again."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import _checkpoints, _platform, _records, _versions, runs
from nacre._errors import UserError

TREE = {
    "weights": (jnp.arange(6.0).reshape(2, 3), jnp.ones(4, jnp.bfloat16)),
    "key": jax.random.key(3),
    "empty": jnp.zeros((0, 2)),
    "flags": jnp.array([True, False]),
    "count": jnp.int32(7),
}
ORIGIN = {"schema": 1, "algorithm": "pearl"}


def host(tree):
    return _checkpoints.to_host(tree)


def same(a, b):
    a, b = host(a), host(b)
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture
def folder(tmp_path):
    """checkpoints/state of a run, with two checkpoints."""
    path = tmp_path / "run" / runs.STATE
    path.parent.parent.mkdir()
    writer = _checkpoints.Writer()
    for label in (1, 2, 3):
        writer.save(path, label, {**TREE, "count": jnp.int32(label)}, {"identity": ORIGIN, "n": label}, keep=2)
    writer.wait()
    writer.close()
    return path


# ----------------------------------------------------------------------------------------------------- checkpoints


def test_what_is_saved_comes_back(folder):
    assert _checkpoints.labels(folder) == [2, 3]  # the older one made room
    tree, record = _checkpoints.load(folder / "3", jax.eval_shape(lambda: TREE), ORIGIN)
    assert same(tree, {**TREE, "count": jnp.int32(3)}) and record["n"] == 3
    assert jnp.issubdtype(tree["key"].dtype, jax.dtypes.prng_key)
    assert not any(path.suffix in (".pkl", ".pickle") for path in folder.rglob("*"))


def test_saved_arrays_are_copies(folder):
    writer, x = _checkpoints.Writer(), jnp.ones(1000)
    writer.save(folder, 9, x, {"identity": ORIGIN})
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    writer.wait()
    assert same(_checkpoints.load(folder / "9", jax.eval_shape(lambda: jnp.ones(1000)), ORIGIN)[0], jnp.ones(1000))


def largest_file(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_damage_is_refused_by_name(folder):
    file = largest_file(folder / "3")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(_checkpoints.CheckpointError, match=r"state/3 is damaged: .* bytes instead of"):
        _checkpoints.load(folder / "3", TREE, ORIGIN)
    file.unlink()
    with pytest.raises(_checkpoints.CheckpointError, match=r"state/3 is damaged: .* is missing"):
        _checkpoints.load(folder / "3", TREE, ORIGIN)
    with pytest.raises(_checkpoints.CheckpointError, match="state/4 does not exist"):
        _checkpoints.load(folder / "4", TREE, ORIGIN)


def test_changed_bytes_are_noticed(tmp_path):
    folder, x = tmp_path / "run" / runs.STATE, jnp.asarray(np.random.default_rng(0).normal(size=5000), jnp.float32)
    folder.parent.parent.mkdir()
    writer = _checkpoints.Writer()
    writer.save(folder, 1, {"x": x}, {"identity": ORIGIN})
    writer.wait()
    file = largest_file(folder / "1")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(_checkpoints.CheckpointError, match="state/1 is damaged"):
        _checkpoints.load(folder / "1", {"x": x}, ORIGIN)


def test_a_kill_before_the_listing_is_no_damage(folder):
    (folder / "3" / "files.json").unlink()
    assert _checkpoints.load(folder / "3", TREE, ORIGIN)[1]["n"] == 3


@pytest.mark.parametrize("like, origin, message", [
    (TREE, {**ORIGIN, "algorithm": "maml"}, "foreign: algorithm 'pearl' where 'maml' is expected"),
    ({**TREE, "count": jnp.zeros(2)}, ORIGIN, r"foreign: array count is int32\[\] where float32\[2\] is expected"),
    ({**TREE, "more": jnp.zeros(2)}, ORIGIN, r"foreign: array more is missing where float32\[2\] is expected"),
])  # fmt: skip
def test_foreign_checkpoints(folder, like, origin, message):
    with pytest.raises(_checkpoints.CheckpointError, match=message):
        _checkpoints.load(folder / "3", like, origin)


def test_what_a_kill_left_is_cleaned(folder):
    (folder / "4.orbax-checkpoint-tmp-1").mkdir()
    _checkpoints.clean(folder, newest=2)
    assert sorted(p.name for p in folder.iterdir()) == ["2"]


def test_a_vanished_directory_is_an_error(tmp_path):
    writer = _checkpoints.Writer()
    writer.save(tmp_path / "gone" / runs.STATE, 1, TREE, {})
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*gone is gone"):
        writer.wait()
    assert not (tmp_path / "gone").exists()


# --------------------------------------------------------------------------------------------------------- records


def line(kind, env_steps, **metrics):
    counters = {"updates": 0, "seconds": 1.0, "evaluation_seconds": 0.5}
    return {"kind": kind, "env_steps": env_steps, **counters, "metrics": metrics}


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def events(folder):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401  the format is TensorFlow's records

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    return found


def test_records_are_cut_back_to_the_checkpoint(tmp_path):
    files = _records.Records(tmp_path)
    files.write(line("train", 10, loss=np.float32(0.1)))
    files.write(line("evaluation", 10, shot=1.0))
    files.write_evaluation(10, {"returns": np.ones(3)})
    offset = files.offset
    files.write(line("train", 20, loss=3.0))
    files.write_evaluation(20, {"returns": np.ones(3)})
    files.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # killed in the middle of a line
    again = _records.Records(tmp_path, offset)
    again.write(line("train", 21, loss=4.0))
    again.close()
    assert [x["env_steps"] for x in read(tmp_path / "metrics.jsonl")] == [10, 10, 21]
    assert [p.name for p in (tmp_path / "evaluations").iterdir()] == ["10.npz"]
    assert events(tmp_path) == [
        ("train/loss", 10, pytest.approx(0.1)), ("evaluation/shot", 10, 1.0), ("train/loss", 21, 4.0)
    ]  # fmt: skip
    assert not again.short


def test_numbers_are_as_short_as_their_precision(tmp_path):
    files = _records.Records(tmp_path, tensorboard=False)
    files.write(line("train", 0, a=np.float32(0.1), b=0.1, c=jnp.int32(3), d=np.bool_(True)))
    assert read(tmp_path / "metrics.jsonl")[0]["metrics"] == {"a": 0.1, "b": 0.1, "c": 3, "d": 1}
    with pytest.raises(ValueError):
        files.write(line("train", 0, a=float("nan")))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        files.write(line("train", 0, a=1.0))
    files.close()
    assert not list(tmp_path.glob("events*"))


def test_a_run_has_one_writer(tmp_path):
    with _records.Lock(tmp_path), pytest.raises(UserError, match=rf"is being trained by process {os.getpid()} on"):
        _records.Lock(tmp_path)
    with _records.Lock(tmp_path):  # the file is still there, its holder is not
        pass


def test_files_that_cannot_be_locked_are_no_other_process(tmp_path, monkeypatch, capsys):
    def refused(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(_records.fcntl, "flock", refused)
    with _records.Lock(tmp_path):
        assert "cannot be locked (Function not implemented): see that only one process" in capsys.readouterr().err


def test_lines_that_are_lost_cost_no_evaluation(tmp_path):
    files = _records.Records(tmp_path)
    for steps in (10, 20, 30):
        files.write(line("evaluation", steps, shot=1.0))
        files.write_evaluation(steps, {"returns": np.ones(3)})
    offset = files.offset
    files.write_evaluation(40, {"returns": np.ones(3)})  # after the checkpoint
    files.close()
    path = tmp_path / "metrics.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_bytes(first.encode() + b"\x00\x00\xff\n")  # what a power cut leaves
    again = _records.Records(tmp_path, offset, 30)
    again.close()
    assert again.short and path.read_text() == first
    assert sorted(p.name for p in (tmp_path / "evaluations").iterdir()) == ["10.npz", "20.npz"]


def test_a_killed_writer_holds_no_lock(tmp_path):
    code = "import os, sys, pathlib; from nacre._records import Lock; Lock(pathlib.Path(sys.argv[1])); os.abort()"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode < 0
    _records.Lock(tmp_path).release()


# -------------------------------------------------------------------------------------------------- run directories

CONFIG = {
    "schema": 1, "algorithm": "pearl", "env": "point-robot", "env_params": {}, "env_from": "name", "preset": "fast",
    "seeds": [0], "config": {"hidden": (8, 8)}, "loop": {}, "spec": {},
}  # fmt: skip


def test_a_new_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.create(None, {**CONFIG, "env": "gymnasium/CartPole-v1"}, {"python": "3"}, "nacre train ...")
    assert run.path.parent == Path("runs") and run.path.name.startswith("pearl-gymnasium-CartPole-v1-")
    again = runs.open_run(run.path)
    assert again == run and again.config["config"]["hidden"] == [8, 8]
    assert (run.path / "command.txt").read_text() == "nacre train ...\n"
    assert runs.short_name("/somewhere/my family.py:pendulum") == "pendulum"


def test_seeds_have_directories_of_their_own(tmp_path):
    run = runs.create(tmp_path / "r", {**CONFIG, "seeds": [3, 5]}, {}, "")
    assert run.seeds == (3, 5) and run.seed_dirs == {3: run.path / "seed-3", 5: run.path / "seed-5"}
    one = runs.open_run(run.path / "seed-5")
    assert one.seeds == (5,) and one.seed_dir() == run.path / "seed-5" and one.path == run.path
    assert one.checkpoints() == [] and one.metrics() == [] and one.evaluations() == []
    with pytest.raises(UserError, match=r"has no seed 3; its seeds are 5"):
        one.params(seed=3)
    with pytest.raises(UserError, match="has no seed '4'; its seeds are 3, 5"):
        runs.open_run(run.path / "seed-4")
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        run.params()
    with pytest.raises(UserError, match="was not evaluated at 5"):
        run.evaluation(5)


def test_a_name_in_which_checkpoints_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"runs\[1\] has a '\[' in its path.*--out"):
        runs.create(tmp_path / "runs[1]", CONFIG, {}, "")
    assert not (tmp_path / "runs[1]").exists()


def test_a_damaged_configuration_is_told(tmp_path):
    run = runs.create(tmp_path / "r", CONFIG, {}, "")
    (run.path / "config.json").write_text(json.dumps({"schema": 1, "seeds": [0]}))
    with pytest.raises(UserError, match=r"is damaged: .*it lacks algorithm, env"):
        runs.open_run(run.path)


def test_a_seeds_directory_by_another_name(tmp_path, monkeypatch):
    run = runs.create(tmp_path / "r", {**CONFIG, "seeds": [3, 5]}, {}, "")
    monkeypatch.chdir(run.path / "seed-5")
    assert runs.open_run(".").seeds == (5,)


def test_a_directory_in_use_is_left_alone(tmp_path):
    run = runs.create(tmp_path / "run", CONFIG, {}, "")
    with pytest.raises(UserError, match=r"run holds a run already.*--resume"):
        runs.create(run.path, CONFIG, {}, "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"mine holds other files.*--out"):
        runs.create(tmp_path / "mine", CONFIG, {}, "")
    with pytest.raises(UserError, match=r"thesis.tex is a file"):
        runs.create(tmp_path / "mine" / "thesis.tex", CONFIG, {}, "")
    with pytest.raises(UserError, match=r"cannot be (written|read) \(Not a directory\).*--out"):
        runs.create(tmp_path / "mine" / "thesis.tex" / "run", CONFIG, {}, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        runs.create(tmp_path / "run", CONFIG, {}, "")


def test_what_is_no_run(tmp_path):
    run = runs.create(tmp_path / "first-run", CONFIG, {}, "")
    with pytest.raises(UserError, match=r"first-rum is not a run: it has no config.json. Did you mean .*first-run"):
        runs.open_run(tmp_path / "first-rum")
    with pytest.raises(UserError, match=r"The newest run there is .*first-run"):
        runs.open_run(tmp_path)
    (run.path / "config.json").write_text(json.dumps({**CONFIG, "schema": 99}))
    with pytest.raises(UserError, match="has schema 99, this Nacre reads 1"):
        runs.open_run(run.path)
    (run.path / "config.json").write_text('{"schema": 1,')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        runs.open_run(run.path)


def test_a_family_without_a_name_is_asked_for(tmp_path):
    run = runs.create(tmp_path / "run", {**CONFIG, "env_from": "object", "env": "mine"}, {}, "")
    with pytest.raises(UserError, match=r"given as a Python object \(mine\).*family="):
        _ = run.env
    assert runs.open_run(run.path, family="anything").env == "anything"


# ------------------------------------------------------------------------------------------------ versions, platform


def test_differences_of_versions():
    now = _versions.collect()
    assert now["packages"]["jax"] == jax.__version__ and now["cores"] >= 1 and now["devices"]
    assert _versions.differences(now, now) == []
    before = {**now, "packages": {**now["packages"], "jax": "0.1"}, "devices": ["gpu: A", "gpu: A"], "system": "other"}
    assert _versions.differences(before, now) == [
        f"devices 1 x {now['devices'][0]}, was 2 x gpu: A", f"jax {jax.__version__}, was 0.1"
    ]  # fmt: skip


def test_flags_only_where_they_were_tried(monkeypatch):
    def flags(given=None):
        environ = {} if given is None else {"XLA_FLAGS": given}
        _platform.set_flags(environ)
        return environ.get("XLA_FLAGS")

    monkeypatch.setattr(_platform, "version", lambda name: "0.10.2")
    monkeypatch.setattr(_platform, "started", lambda: False)
    assert flags() == "--xla_cpu_experimental_ynn_fusion_type="
    assert flags("--xla_foo=1") == "--xla_foo=1 --xla_cpu_experimental_ynn_fusion_type="
    mine = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    assert flags(mine) == mine
    monkeypatch.setattr(_platform, "version", lambda name: "9.9.9" if name == "jax" else "0.10.2")
    assert flags() is None and flags("--xla_foo=1") == "--xla_foo=1"


@pytest.fixture
def no_cache():
    """JAX without a cache directory, put back afterwards."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


ROWS = """
import sys
import jax, jax.numpy as jnp, numpy as np
if "late" in sys.argv:
    jnp.arange(3) + 1
import nacre
draw = np.random.default_rng(0).normal
f, d, g = (draw(size=shape).astype(np.float32) for shape in ((24, 8), (24, 1), (192, 24, 8)))
rule = lambda f, d, g: (f * g).sum(-1, keepdims=True) * d + g
nacre.train  # noqa: B018  Nacre itself, which sets flags, is lazy
found = np.asarray(jax.jit(rule)(f, d, g))
print(np.abs(found - rule(f.astype(float), d.astype(float), g.astype(float))).max() < 1e-4)
"""


@pytest.mark.skipif(_platform.version("jaxlib") not in _platform.FLAGGED, reason="of one version of jaxlib")
def test_without_the_flag_a_program_is_wrong_and_too_late_is_told():
    free = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    }
    run = partial(subprocess.run, capture_output=True, text=True, env=free | {"JAX_PLATFORMS": "cpu"})
    early, late = (run([sys.executable, "-c", ROWS, word]) for word in ("early", "late"))
    assert early.stdout == "True\n" and "too late" not in early.stderr
    assert late.stdout == "False\n" and "comes too late" in late.stderr


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys, no_cache):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NACRE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    _platform.prepare()
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "NACRE_CACHE_DIR" in err and "Not a directory" in err
    assert jax.config.jax_compilation_cache_dir is None


def test_the_cache_directory(tmp_path, monkeypatch, capsys, no_cache):
    monkeypatch.delenv("NACRE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _platform.prepare()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "nacre" / "xla")
    monkeypatch.setenv("NACRE_CACHE_DIR", "/elsewhere")
    _platform.prepare()  # what JAX has already stays
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "nacre" / "xla")
    assert capsys.readouterr().err == ""


def test_64_bit_mode_is_refused():
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(UserError, match=r"64-bit mode.*unset JAX_ENABLE_X64"):
            _platform.prepare()
    finally:
        jax.config.update("jax_enable_x64", False)
