"""Whether a run fits into the machine's memory, before it begins."""

import math
import os
import warnings
from pathlib import Path
from typing import Any

import jax

from nacre import _checkpoints
from nacre._errors import UserError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def check_memory(algorithm: Any, env: Any, env_steps: int, together: int) -> None:
    """together: seeds that train as one program. Raises UserError where what training holds is more than the machine has, warns
    where a checkpoint, which copies it, would be."""
    state = jax.eval_shape(lambda key: algorithm.init(key, env, env_steps), jax.random.key(0))
    sizes = {name: size_of(leaf) * together for name, leaf in _checkpoints.named(state).items()}
    held = sum(sizes.values())
    room, where = memory()
    if room is None or 2 * held <= room:
        return
    largest = max(sizes, key=sizes.get)
    told = (
        f"training holds {shown(held)}, {shown(sizes[largest])} of it {largest}, and {where} has {shown(room)}; fewer "
        "--env-steps or smaller buffers need less"
    )
    if held > room:
        raise UserError(told)
    if where == "this machine":
        warnings.warn(f"{told}. It fits, but a checkpoint copies it, which may not", stacklevel=2)


def size_of(leaf: Any) -> int:
    """Bytes of an array, or of the shape of one."""
    if _checkpoints.is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def memory() -> tuple[int | None, str]:
    """Bytes where training takes place, None where that is not known, and whose they are."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit"), f"the {device.device_kind}"
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (OSError, ValueError, AttributeError):
        return None, "this machine"
    for path in LIMITS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found), "this machine"


def shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
