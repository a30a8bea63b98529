"""Rows of MuJoCo's integration state stepped on all cores, natively or by a thread pool; no rules of any family."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

CONTACT_FORCES = "mj_rnePostConstraint"  # fills cfrc_ext and cacc, as gymnasium does after each env step


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gymnasium_asset(name: str) -> Path:
    """Path of one of gymnasium's MuJoCo models, found without importing gymnasium."""
    found = find_spec("gymnasium")
    path = Path(found.submodule_search_locations[0], "envs/mujoco/assets", name) if found else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"MuJoCo model {name!r} not found at {path}; expected gymnasium>=1.2 to bring it")
    return path


def own_asset(name: str) -> Path:
    """Path of one of our MuJoCo models."""
    return Path(__file__).parents[1] / "models" / name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what MuJoCo warns of while models load: it would print deprecations and leave a log file behind."""
    import mujoco

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def load_model(path: Path) -> Any:
    """MjModel of an XML file; diverged numbers stay instead of resetting silently, so that they can be reported. Raises
    ValueError for a file that MuJoCo cannot load."""
    import mujoco

    try:
        with quiet():
            model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ValueError(f"MuJoCo {mujoco.__version__} cannot load the model {path}: {error}") from error
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    return model


class Physics:
    """Steps rows of one model, or of models that differ in their numbers only. Holds scratch memory only: two calls with the
    same arguments give the same result.

    fields: MjData fields to return beside the state. finish: names of MuJoCo functions (model, data) to run after each env
    step, such as CONTACT_FORCES. timestep: seconds per substep instead of the file's. adjust(model): changes other numbers
    of the file. threads 0: all cores. native None: `mujoco.batch` if it is there and can do what is asked. Not to be used
    from several Python threads at once.
    """

    def __init__(
        self,
        path: Path,
        frame_skip: int,
        fields: tuple[str, ...] = (),
        *,
        finish: tuple[str, ...] = (),
        timestep: float | None = None,
        adjust: Callable[[Any], None] | None = None,
        threads: int = 0,
        native: bool | None = None,
    ):
        import mujoco

        self.model = load_model(path)
        if timestep is not None:
            self.model.opt.timestep = timestep
        if adjust is not None:
            adjust(self.model)
        self.frame_skip = frame_skip
        self.dt = frame_skip * self.model.opt.timestep
        self.threads = threads or cores()
        self._signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self.fields, self.finish = fields, finish
        self._finish = [getattr(mujoco, name) for name in finish]
        self._native = (not finish and has_batch()) if native is None else native
        self._batch: Any = None
        self._models: Any = None  # what the native batch runs on, where that is not `model`
        data = mujoco.MjData(self.model)
        self._shapes = {name: getattr(data, name).shape for name in fields}
        self._blank = np.empty(mujoco.mj_stateSize(self.model, self._signature))
        mujoco.mj_getState(self.model, data, self._blank, self._signature)
        self.qpos, self.qvel, self.ctrl = (
            self._slice(mujoco.mjtState.mjSTATE_QPOS),
            self._slice(mujoco.mjtState.mjSTATE_QVEL),
            self._slice(mujoco.mjtState.mjSTATE_CTRL),
        )
        self.motion = slice(self.qpos.start, self.qvel.stop)

    def _slice(self, part: Any) -> slice:
        """Where a part lies in a row: parts follow each other in the order of their bits."""
        import mujoco

        start = mujoco.mj_stateSize(self.model, self._signature & (int(part) - 1))
        return slice(start, start + mujoco.mj_stateSize(self.model, int(part)))

    def begin(self, qpos: np.ndarray, qvel: np.ndarray, models: Any = None) -> tuple[np.ndarray, dict]:
        """Rows and fields of fresh simulations (time 0, no warm start) at the given positions and velocities."""
        rows = np.empty((len(qpos), len(self._blank)))
        fields = {name: np.zeros((len(qpos), *shape)) for name, shape in self._shapes.items()}
        return self.begin_again(rows, fields, np.arange(len(qpos)), qpos, qvel, models)

    def begin_again(
        self, rows: np.ndarray, fields: dict, ids: np.ndarray, qpos: np.ndarray, qvel: np.ndarray, models: Any = None
    ) -> tuple[np.ndarray, dict]:
        """The same with fresh simulations in the rows `ids` (sorted) only; qpos and qvel are those of all rows."""
        rows = rows.copy()
        rows[ids] = self._blank
        rows[ids, self.qpos], rows[ids, self.qvel] = qpos[ids], qvel[ids]
        return self.run(rows, fields, ids, 0, models)

    def run(self, rows: np.ndarray, fields: dict, ids: np.ndarray, nstep: int, models: Any = None) -> tuple:
        """`nstep` substeps (0: mj_forward) of the rows `ids` (sorted); the others are returned as they were."""
        if self._native:
            return self._run_native(rows, fields, ids, nstep, models)
        rows = rows.copy()
        fields = {name: value.copy() for name, value in fields.items()}
        chunks = [chunk for chunk in np.array_split(ids, self.threads) if len(chunk)]
        work = [(k, chunk.tolist(), rows, fields, nstep, models) for k, chunk in enumerate(chunks)]
        waiting = [self._pool.submit(self._run_chunk, *args) for args in work[1:]]
        if work:
            self._run_chunk(*work[0])
        for future in waiting:
            future.result()
        return rows, fields

    def _run_chunk(self, thread: int, ids: list, rows: np.ndarray, fields: dict, nstep: int, models: Any) -> None:
        """Rows one after another through the thread's MjData, which stays in the cache; mj_step frees the GIL."""
        from mujoco import mj_forward, mj_getState, mj_setState, mj_step

        data, signature, model = self._data[thread], self._signature, self.model
        copies = [(fields[name], getattr(data, name)) for name in self.fields]
        for i in ids:
            row = rows[i]
            if models is not None:
                model = models[i]
            mj_setState(model, data, row, signature)
            if nstep:
                mj_step(model, data, nstep)
            else:
                mj_forward(model, data)
            for function in self._finish:
                function(model, data)
            mj_getState(model, data, row, signature)
            for target, source in copies:
                target[i] = source

    def _run_native(self, rows: np.ndarray, fields: dict, ids: np.ndarray, nstep: int, models: Any = None) -> tuple:
        """The same with one native call."""
        n = len(rows)
        if self._batch is None or self._batch.nsim < n:
            from mujoco.batch import Batch

            self._batch, self._models = Batch(self.model, n, self.threads), None
        batch = self._batch
        if models is not self._models:
            padding = [self.model] * (batch.nsim - n)
            batch.set_models(None if models is None else [*models, *padding])
            self._models = models
        bound = {name: batch.bind(name) for name in self.fields}
        batch.state[:n] = rows
        if nstep:
            batch.step(ids, nstep=nstep)
        else:
            batch.forward(ids)
        if len(ids) == n:
            return batch.state[:n].copy(), {name: value[:n].copy() for name, value in bound.items()}
        fields = {name: value.copy() for name, value in fields.items()}
        for name, value in bound.items():
            fields[name][ids] = value[ids]
        return batch.state[:n].copy(), fields

    @functools.cached_property
    def _data(self) -> list:
        import mujoco

        return [mujoco.MjData(self.model) for _ in range(self.threads)]

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="nacre-mujoco")


def has_batch() -> bool:
    """Whether this MuJoCo has the native batch (3.17 on)."""
    return find_spec("mujoco.batch") is not None
