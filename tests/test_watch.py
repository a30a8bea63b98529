"""Animations of trials."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nacre import rollout, watch
from nacre._errors import UserError
from nacre.agent import Agent
from nacre.envs.backends import mujoco as backend
from nacre.envs.registry import make_family


def random_agent(path, family, **params):
    env = make_family(family, **params)
    actor = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    return Agent(actor, (), env, "random", family, path=path)


@pytest.fixture
def agent_of(tmp_path, monkeypatch):
    """agent_of(family) makes watch load an agent that acts at random."""

    def put(family, **params):
        agent = random_agent(tmp_path, family, **params)
        monkeypatch.setattr(watch, "load", lambda run, checkpoint=None, family=None: agent)
        return agent

    return put


@pytest.mark.parametrize(("family", "episodes"), [("sparse-point-robot", 3), ("point-robot", None)])
def test_point_robots_make_a_gif(tmp_path, agent_of, family, episodes):
    agent = agent_of(family)
    path = watch.watch("run", task=2, episodes=episodes)
    assert path == tmp_path / "trial-2.gif" and not list(tmp_path.glob("*.part"))
    with Image.open(path) as film:
        steps = agent.spec.horizon + 1
        assert film.n_frames == (episodes or agent.spec.trial_episodes) * steps
        assert film.info["loop"] == 0 and film.width >= 640
        film.seek(steps - 1)
        assert film.info["duration"] == 700  # held at the end of an episode
        last = np.asarray(film.convert("RGB"), float)
        film.seek(1)
        first = np.asarray(film.convert("RGB"), float)
    assert last.std() > 10 and np.abs(last - first).mean() > 0.1


def test_the_path_is_the_one_that_was_walked(tmp_path, agent_of):
    agent = agent_of("sparse-point-robot")
    trial = watch.play(agent, agent.env, 4, 2, seed=0)
    np.testing.assert_allclose(trial["task"], agent.env.test_tasks[4])
    np.testing.assert_allclose(trial["info"]["x"][:, :-1], trial["obs"][:, 1:, 0], atol=1e-6)
    np.testing.assert_allclose(trial["obs"][:, 0], 0.0)
    np.testing.assert_allclose(trial["returns"], trial["reward"].sum(axis=1))
    same, other = (watch.play(agent, agent.env, 4, 2, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(trial["obs"], same["obs"])
    assert np.abs(trial["obs"] - other["obs"]).max() > 0


def test_mistakes_are_named(tmp_path, agent_of):
    agent = agent_of("sparse-point-robot")
    with pytest.raises(UserError, match="0 to 19, got 20"):
        watch.watch("run", task=20)
    with pytest.raises(UserError, match="episodes must be at least 1, got 0"):
        watch.watch("run", episodes=0)
    with pytest.raises(UserError, match=r"ends in \.gif"):
        watch.watch("run", tmp_path / "film.mp4")
    with pytest.raises(UserError, match="no directory"):
        watch.watch("run", tmp_path / "no" / "film.gif")

    class Plain:
        spec, test_tasks = agent.spec, agent.env.test_tasks

    with pytest.raises(UserError, match="brings no animation"):
        watch.checked(dataclasses.replace(agent, env=Plain()), None, None)


def test_without_opengl_the_message_says_what_to_install(agent_of, monkeypatch):
    import mujoco

    def refuse(*args):
        raise mujoco.FatalError("gladLoadGL error")

    monkeypatch.setattr(mujoco, "Renderer", refuse)
    agent_of("cheetah-vel", horizon=4)
    with pytest.raises(UserError, match=r"libegl1.*MUJOCO_GL=egl.*libosmesa6.*MUJOCO_GL=osmesa"):
        watch.watch("run")


def painted(family, poses, **size):
    return [np.full((16, 24, 3), k % 250, np.uint8) for k in range(len(poses))]


def test_cheetah_frames(agent_of, monkeypatch):
    monkeypatch.setattr(backend, "render_frames", painted)
    agent_of("cheetah-vel", horizon=10)
    with Image.open(watch.watch("run", episodes=2)) as film:
        assert film.n_frames == 2 * 5  # every other env step
        assert film.info["duration"] == 100


DRAW = """
from nacre import watch
watch.choose_graphics()
from nacre.envs.backends import mujoco as backend
from nacre.envs.cheetah import CheetahDir
env = CheetahDir()
frames = backend.render_frames(env, env.physics.model.qpos0[None].repeat(2, axis=0), 64, 48)
print(len(frames), frames[0].shape, frames[0].std() > 10)
"""


def test_mujoco_draws_where_it_can():
    """In a process of its own: without a display some OpenGL libraries abort the process."""
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, timeout=120)
    if done.returncode < 0 or "RuntimeError" in done.stderr or "FatalError" in done.stderr:
        pytest.skip(f"no OpenGL here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "2 (48, 64, 3) True"


def test_graphics_are_chosen_only_where_the_user_left_it_open(monkeypatch):
    monkeypatch.setattr(watch, "draws", lambda name: name == "osmesa")
    monkeypatch.setattr(watch, "find_library", lambda name: name)
    monkeypatch.setattr(watch.sys, "platform", "linux")
    monkeypatch.delitem(watch.sys.modules, "mujoco", raising=False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    watch.choose_graphics()
    assert watch.os.environ["MUJOCO_GL"] == "glfw"
    monkeypatch.delenv("MUJOCO_GL")
    watch.choose_graphics()
    assert watch.os.environ["MUJOCO_GL"] == "osmesa"
