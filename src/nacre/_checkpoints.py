"""Trees of arrays on disk, by Orbax: asynchronous, atomic, and checked when they come back.

A checkpoint is a directory `<label>/` with the arrays by name (item `tree`) and a small JSON (item `record`); Orbax
writes it under another name and renames it when it is complete. `files.json`, added after that, holds the sizes of
its files. The record carries name, shape, dtype and checksum of every array: what is restored is what was saved, or
is refused.
"""

import concurrent.futures
import functools
import json
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nacre._files import write_text


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or made by something else. The message names it."""


def labels(folder: Path) -> list[int]:
    """Complete checkpoints below `folder`, ascending; unfinished ones have other names."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit() and path.is_dir())


def clean(folder: Path, newest: int | None = None) -> None:
    """Remove what a kill left half written, and checkpoints after `newest`."""
    for path in folder.glob("*"):
        if not path.name.isdigit() or (newest is not None and int(path.name) > newest):
            shutil.rmtree(path, ignore_errors=True)


# --------------------------------------------------------------------------------------------- trees and names


def is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def named(tree: Any) -> dict[str, Any]:
    """Leaves by the path that leads to them, e.g. `nets.encoder.net.weights.0`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def to_host(tree: Any) -> dict[str, np.ndarray]:
    """Copies, so that the arrays may be donated afterwards. PRNG keys become their data."""
    return {name: np.array(jax.random.key_data(x) if is_key(x) else x) for name, x in named(tree).items()}


def from_host(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """The tree again, on the default device; `like` (arrays or their shapes) gives the structure."""
    leaves = []
    for name, leaf in named(like).items():
        x = jnp.asarray(arrays[name]) if name in arrays else jnp.zeros(leaf.shape, leaf.dtype)
        leaves.append(jax.random.wrap_key_data(x) if is_key(leaf) else x)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def describe(arrays: dict[str, np.ndarray]) -> dict[str, list]:
    """name -> [shape, dtype, CRC-32]."""
    return {name: [list(x.shape), str(x.dtype), checksum(x)] for name, x in arrays.items()}


def checksum(x: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8)) if x.size else 0


# ---------------------------------------------------------------------------------------------------- writing


class Writer:
    """Writes checkpoints in the background, one after another.

    Errors (a full disk, a vanished directory) are raised by the next call of `check`, `save` or `wait`, as OSError.
    """

    def __init__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="nacre-checkpoint")
        self._pending: list[concurrent.futures.Future] = []
        self.seconds = 0.0  # what the slowest save of those that replace older ones took

    def save(self, folder: Path, label: int, tree: Any, record: dict[str, Any], *, keep: int | None = None) -> None:
        """Save `tree` as folder/label, replacing one of the same label; returns when the arrays are copied. Afterwards
        only the `keep` newest of the folder stay (None: all)."""
        self.check()
        arrays = to_host(tree)
        self._pending.append(self._pool.submit(self._write, folder, label, arrays, record, keep))

    @property
    def busy(self) -> bool:
        return any(not future.done() for future in self._pending)

    def check(self) -> None:
        """Raise what went wrong in the background."""
        for future in [f for f in self._pending if f.done()]:
            self._pending.remove(future)
            future.result()

    def wait(self) -> None:
        """Until everything is on disk."""
        concurrent.futures.wait(self._pending)
        self.check()

    def close(self) -> None:
        """Finish what was asked for; errors are dropped."""
        self._pool.shutdown(wait=True)

    def _write(self, folder: Path, label: int, arrays: dict, record: dict, keep: int | None) -> None:
        import orbax.checkpoint  # noqa: F401  loading it is not part of the time

        start = time.monotonic()
        path = folder / str(label)
        try:
            if not folder.parent.parent.is_dir():  # Orbax would make a deleted run directory anew
                raise FileNotFoundError(f"the run directory {folder.parent.parent} is gone")
            _orbax_save(path, arrays, {**record, "arrays": describe(arrays)})
            if not (path / "tree" / "manifest.ocdbt").is_file():
                raise OSError("its pieces were not put together")
            write_json(path / "files.json", _sizes(path))
            for old in labels(folder)[:-keep] if keep else []:
                shutil.rmtree(folder / str(old), ignore_errors=True)
        except Exception as error:  # Orbax wraps what the system said in errors of its own
            raise OSError(f"cannot write the checkpoint {path}: {_root_cause(error)}") from error
        if keep:
            self.seconds = max(self.seconds, time.monotonic() - start)


def _orbax_save(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    tree = {name: x for name, x in arrays.items() if x.size}  # Orbax refuses arrays without entries
    items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(path.absolute(), args=items, force=True)


def _sizes(path: Path) -> dict[str, int]:
    return {str(p.relative_to(path)): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def write_json(path: Path, value: Any) -> None:
    """Atomically: the file is whole, or as it was."""
    write_text(path, json.dumps(value, indent=1) + "\n")


# ---------------------------------------------------------------------------------------------------- reading


def load(path: Path, like: Any, identity: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tree and the record of a checkpoint. like: a tree of arrays or of their shapes. identity: what the record
    must say of its origin, name by name.

    Raises CheckpointError if it is missing, truncated, damaged, or does not fit.
    """
    record = read_record(path, identity)
    if different := difference(layouts(record), like):
        raise CheckpointError(f"checkpoint {path} is foreign: {different}")
    return from_host(read_arrays(path, record), like), record


def layouts(record: dict[str, Any]) -> dict[str, tuple]:
    """name -> (shape, dtype) of the arrays that a record tells of."""
    return {name: (tuple(shape), dtype) for name, (shape, dtype, _) in record["arrays"].items()}


def difference(found: dict[str, tuple], like: Any) -> str:
    """The first layout that is not that of the tree `like`, in words; "" where all are."""
    wanted = {name: _layout(x) for name, x in named(like).items()}
    return "" if found == wanted else _first_difference(found, wanted)


def read_arrays(path: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by name, whatever tree they are of. Raises CheckpointError where they are not what the record says."""
    arrays = {name: np.asarray(x) for name, x in _restore(path, "tree").items()}
    for name, (shape, dtype, crc) in record["arrays"].items():
        if 0 in shape:  # Orbax keeps none of these
            arrays[name] = np.zeros(shape, dtype)
        elif name not in arrays or checksum(arrays[name]) != crc:
            raise CheckpointError(f"checkpoint {path} is damaged: the array {name} is not what was saved")
    return arrays


def read_record(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The record alone. Raises as `load`, but for damaged arrays."""
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist")
    _check_sizes(path)
    record = _restore(path, "record")
    if not isinstance(record, dict) or "arrays" not in record:
        raise CheckpointError(f"checkpoint {path} is damaged: its record is not one of Nacre's")
    found = record.get("identity", {})
    foreign = [f"{name} {found.get(name)!r} where {value!r} is expected"
               for name, value in identity.items() if found.get(name) != value]  # fmt: skip
    if foreign:
        raise CheckpointError(f"checkpoint {path} is foreign: {'; '.join(foreign)}")
    return record


def _check_sizes(path: Path) -> None:
    listing = path / "files.json"
    if not listing.is_file():  # killed between Orbax's rename and our listing: the checksums decide
        return
    try:
        expected = json.loads(listing.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} is damaged: files.json cannot be read ({error})") from error
    for name, size in expected.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise CheckpointError(f"checkpoint {path} is damaged: {name} {state}")


@functools.cache
def _reader():
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _restore(path: Path, item: str) -> Any:
    import orbax.checkpoint as ocp

    args = ocp.args.JsonRestore() if item == "record" else ocp.args.StandardRestore()
    try:
        return _reader().restore(path.absolute(), args=ocp.args.Composite(**{item: args}))[item]
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise CheckpointError(
            f"checkpoint {path} is damaged: its {item} cannot be read ({_root_cause(error)})"
        ) from error


def _layout(x: Any) -> tuple[tuple[int, ...], str]:
    if is_key(x):
        x = jax.eval_shape(jax.random.key_data, x)
    return tuple(x.shape), str(x.dtype)


def _first_difference(found: dict, wanted: dict) -> str:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            return (
                f"array {name} is {_show(found.get(name))} where {_show(wanted.get(name))} is expected "
                "(another network size, family or number of tasks)"
            )
    return "its arrays differ"


def _show(layout: tuple | None) -> str:
    return "missing" if layout is None else f"{layout[1]}{list(layout[0])}"
