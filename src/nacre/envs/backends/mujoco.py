"""MuJoCo's own C library stepping a batch of tasks on all cores. State in, state out: no hidden simulator state.

A simulation is one row of MuJoCo's integration state (time, qpos, qvel, solver warm start, ...), so a batch is a
float64 array [B, size]. Rows are stepped by `mujoco.batch` where the installed MuJoCo has it (3.17 on) and by a thread
pool with one MjData per thread otherwise; both give the bits of a plain `mj_step` loop. Measured side by side in
`benchmarks/mujoco_stepping.py`; `mujoco.rollout` is not used because it loses the warm start and the derived fields.

A task family brings the rules (see `Rules`) and takes `reset`, `restart` and `step` of this module as its methods.
"""

from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from nacre.envs.backends.mujoco_physics import Physics
from nacre.types import Array, EnvSpec, Key, Step, task_count

Backend = Literal["c", "mjx", "warp"]
HUGE = 1e10  # MuJoCo's own limit (mjMAXVAL) above which a number counts as diverged


class Data(NamedTuple):
    """What rules may read of the simulation; leading axis B. After a step the fields are as `mj_step` leaves them:
    with the Euler integrator body positions (xpos) are those at the start of the last substep."""

    qpos: Array  # [B, nq] m, rad
    qvel: Array  # [B, nv] m/s, rad/s
    fields: dict[str, Array]  # each [B, ...]: the MjData fields that the family's Physics names


class Rules(Protocol):
    """A family's rules: written over arrays with leading axes with xp = x.__array_namespace__(), NumPy or JAX.

    A family whose tasks differ in the body also has `factors(task)` -> name of a model's field and what multiplies it, and
    `models(tasks)` -> one MjModel per row; one whose tasks say where things stand `arrange(qpos, tasks)` -> the first qpos; one
    whose learners may use another reward `train_reward`, with the arguments of `reward`; one that measures something of the task
    `measure_task(after, tasks)`, more of Step.info.
    """

    spec: EnvSpec
    physics: "Physics"
    train_tasks: Any

    def start(self, rng: np.random.Generator, model: Any, rows: int) -> tuple[Array, Array]:
        """First qpos [B, nq] and qvel [B, nv] of an episode; row i must not depend on the number of rows."""

    def observe(self, data: Data) -> Array: ...  # [B, obs_size]
    def reward(self, before: Data, after: Data, action: Array, task: Any, dt: float) -> Array: ...  # [B]
    def terminal(self, data: Data) -> Array: ...  # [B] bool
    def measure(self, before: Data, after: Data, dt: float) -> dict[str, Array]: ...  # for Step.info


class MujocoState(NamedTuple):
    """B simulations. A value: stepping it twice gives the same result twice."""

    rows: np.ndarray  # [B, size] float64, MuJoCo's mjSTATE_INTEGRATION
    fields: dict[str, np.ndarray]  # [B, ...] derived fields that belong to `rows`
    tasks: Any
    steps: np.ndarray  # [B] env steps since the episode began
    models: Any = None  # one MjModel per row, or None for the family's own


def view(physics: Physics, rows: np.ndarray, fields: dict[str, np.ndarray]) -> Data:
    return Data(rows[:, physics.qpos], rows[:, physics.qvel], fields)


def host_generator(key: Key) -> np.random.Generator:
    """NumPy's generator of a JAX key; no global random state."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def first_pose(rules: Rules, rng: Any, tasks: Any) -> tuple[Array, Array]:
    """First qpos and qvel of an episode in each of the tasks."""
    qpos, qvel = rules.start(rng, rules.physics.model, task_count(tasks))
    return rules.arrange(qpos, tasks) if hasattr(rules, "arrange") else qpos, qvel


def rewards(rules: Rules, before: Data, after: Data, action: Array, tasks: Any) -> tuple[Array, Array]:
    """What the agent sees, and what learners may use instead; each [B]."""
    args = (before, after, action, tasks, rules.physics.dt)
    reward = rules.reward(*args)
    return reward, rules.train_reward(*args) if hasattr(rules, "train_reward") else reward


def measured(rules: Rules, before: Data, after: Data, tasks: Any) -> dict[str, Array]:
    """All measurements, [B, ...] each."""
    info = rules.measure(before, after, rules.physics.dt)
    return {**info, **rules.measure_task(after, tasks)} if hasattr(rules, "measure_task") else info


def reset(rules: Rules, key: Key, tasks: Any) -> tuple[MujocoState, np.ndarray]:
    """Start an episode in each row; depends on the key and the row only. -> state, obs [B, obs_size] float32."""
    check_tasks(rules, tasks)
    physics = rules.physics
    n = len(jax.tree.leaves(tasks)[0])
    models = rules.models(tasks) if hasattr(rules, "models") else None
    qpos, qvel = first_pose(rules, host_generator(key), tasks)
    rows, fields = physics.begin(qpos, qvel, models)
    state = MujocoState(rows, fields, tasks, np.zeros(n, np.int32), models)
    return state, rules.observe(view(physics, rows, fields)).astype(np.float32)


def restart(rules: Rules, key: Key, state: MujocoState, over: Array) -> tuple[MujocoState, np.ndarray]:
    """A new episode, of the same task, in the rows where `over` [B] is True, as `reset` would begin it with this key; the
    others go on. -> state, obs [B, obs_size]."""
    physics = rules.physics
    qpos, qvel = first_pose(rules, host_generator(key), state.tasks)
    rows, fields = physics.begin_again(state.rows, state.fields, np.flatnonzero(over), qpos, qvel, state.models)
    steps = np.where(over, 0, state.steps).astype(np.int32)
    obs = rules.observe(view(physics, rows, fields)).astype(np.float32)
    return MujocoState(rows, fields, state.tasks, steps, state.models), obs


def step(rules: Rules, state: MujocoState, action: Array, active: Array) -> tuple[MujocoState, Step]:
    """One env step (frame_skip substeps) of the active rows.

    action [B, nu] in actuator units, clipped to the spec's bounds before physics and reward. Inactive rows cost no
    physics: they keep their state and observation, their reward is 0. Raises FloatingPointError, naming row and env
    step, where an action is not finite or the simulation diverged; ValueError for an action of another shape.
    """
    physics, spec = rules.physics, rules.spec
    active = np.asarray(active, bool)
    ids = np.flatnonzero(active)
    action = np.asarray(action, np.float64)
    if action.shape != (len(active), spec.action.size):
        expected = (len(active), spec.action.size)
        raise ValueError(f"{spec.name}: action must have the shape {expected}, one row per task, got {action.shape}")
    check_finite(spec.name, "action", action, ids, state, "look for NaN in the policy's parameters")
    action = np.clip(action, spec.action.low, spec.action.high)
    rows = state.rows.copy()
    rows[:, physics.ctrl] = action
    rows, fields = physics.run(rows, state.fields, ids, physics.frame_skip, state.models)
    remedy = "the simulation diverged: lower the actions' magnitude or the model's time step"
    check_finite(spec.name, "[qpos, qvel]", rows[:, physics.motion], ids, state, remedy)
    before, after = view(physics, state.rows, state.fields), view(physics, rows, fields)
    reward, train_reward = rewards(rules, before, after, action, state.tasks)
    info = measured(rules, before, after, state.tasks)
    out = Step(
        obs=rules.observe(after).astype(np.float32),
        reward=np.where(active, reward, 0.0).astype(np.float32),
        train_reward=np.where(active, train_reward, 0.0).astype(np.float32),
        terminal=rules.terminal(after) & active,
        info={name: np.asarray(value, np.float32) for name, value in info.items()},
    )
    return MujocoState(rows, fields, state.tasks, state.steps + active, state.models), out


def check_tasks(rules: Rules, tasks: Any) -> None:
    """Raise ValueError for tasks that are not finite, or not of the family's shape."""
    for leaf, like in zip(jax.tree.leaves(tasks), jax.tree.leaves(rules.train_tasks), strict=True):
        leaf = np.asarray(leaf)
        if leaf.shape[1:] != like.shape[1:]:
            expected = ("n", *like.shape[1:])
            raise ValueError(f"{rules.spec.name}: tasks must have the shape {expected}, got {leaf.shape}")
        bad = np.flatnonzero(~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1))
        if len(bad):
            what = f"task {leaf[bad[0]].tolist()} (row {bad[0]})"
            names = ", ".join(rules.spec.task_names)
            raise ValueError(f"{rules.spec.name}: {what} is impossible; expected finite numbers ({names})"[:400])


def check_finite(name: str, what: str, value: np.ndarray, ids: np.ndarray, state: MujocoState, remedy: str) -> None:
    """Raise FloatingPointError for the first of the rows `ids` that holds NaN, infinity or a number beyond HUGE. The state
    before the step stays as it was, for this row and the others."""
    if np.abs(value).max(initial=0.0) < HUGE:  # False for NaN too
        return
    good = np.abs(value[ids]) < HUGE
    if good.all():
        return
    row = int(ids[np.argmin(good.all(axis=-1))])
    task = jax.tree.map(lambda leaf: np.asarray(leaf)[row].tolist(), state.tasks)
    raise FloatingPointError(
        f"{name}: {what} is {value[row].tolist()} in row {row} at env step {int(state.steps[row])} of its episode, task "
        f"{task}; expected finite numbers below {HUGE:.0e}; {remedy}"
    )


def render_frames(rules: Rules, qpos: np.ndarray, width: int = 480, height: int = 320, camera: int = 0) -> list:
    """Pictures of the poses qpos [T, nq]: a list of T uint8 arrays [height, width, 3].

    camera: index of the model's camera, -1 for the free one. Raises RuntimeError where no OpenGL is available.
    """
    import mujoco

    model = rules.physics.model
    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # each GL back end raises its own kind
        raise RuntimeError(
            f"cannot open an OpenGL context for pictures ({type(error).__name__}: {error}); on a machine without a "
            "display install EGL (package libegl1) and set MUJOCO_GL=egl, or OSMesa (package libosmesa6) and set "
            "MUJOCO_GL=osmesa, before Python starts"
        ) from error
    frames = []
    with renderer:
        for pose in np.asarray(qpos, np.float64):
            data.qpos[:] = pose
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=camera)
            frames.append(renderer.render().copy())
    return frames
