"""`nacre doctor`: what this machine has of what Nacre needs, and what to do about the rest."""

import importlib
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from nacre import _platform, _versions

NEEDED = ("jax", "equinox", "optax", "numpy", "scipy", "gymnasium", "mujoco", "orbax.checkpoint", "tyro", "rich",
          "tensorboardX", "matplotlib", "jinja2", "PIL")  # fmt: skip
RENDER = """
import mujoco
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
renderer.update_scene(mujoco.MjData(renderer.model))
renderer.render()
"""


class TroubleError(Exception):
    """Something is broken: what, and what to do about it."""


def doctor() -> int:
    """Print one line per thing looked at; -> 0, or 1 if training cannot work."""
    checks: list[tuple[str, bool, Callable[[], str]]] = [  # name, needed for training, check
        ("python", True, python),
        ("packages", True, imports),
        ("extras", False, extras),
        ("jax", True, devices),
        ("64-bit mode", True, precision),
        ("threads", False, threads),
        ("XLA flags", False, flags),
        ("cache", False, cache),
        ("OpenGL", False, opengl),
        ("disk", False, disk),
    ]
    broken = False
    for name, needed, check in checks:
        try:
            print(f"ok      {name}: {check()}", flush=True)
        except TroubleError as trouble:
            broken |= needed
            print(f"{'BROKEN' if needed else 'limited'} {name}: {trouble}".replace("BROKEN ", "BROKEN  "), flush=True)
        except Exception as error:  # whatever is wrong with the machine is the doctor's subject
            broken |= needed
            print(f"BROKEN  {name}: {type(error).__name__}: {error}", flush=True)
    print("training cannot work here until this is repaired" if broken else "training works here")
    return int(broken)


def python() -> str:
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        raise TroubleError(f"{sys.version.split()[0]} is not supported; install Python 3.11 to 3.14")
    return sys.version.split()[0]


def imports() -> str:
    """Everything that Nacre needs can be imported."""
    broken = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises anything
            broken.append(f"{name} ({type(error).__name__}: {error})")
    if broken:
        raise TroubleError(
            f"cannot import {'; '.join(broken)}; install Nacre again: pip install --force-reinstall nacre"
        )
    if _platform.version("mujoco") == "4.0.0":
        raise TroubleError("mujoco 4.0.0 has a wrong solver; install another version: pip install 'mujoco>=3.3,<4'")
    return ", ".join(f"{name} {version}" for name, version in _versions.packages().items())


def extras() -> str:
    """Optional packages; those that are there must fit the rest."""
    names = "metaworld", "mujoco-mjx", "warp-lang", "mujoco"
    meta_world, mjx, warp, mujoco = map(_platform.version, names)
    if meta_world and mujoco != "3.3.0":
        raise TroubleError(
            f"Meta-World {meta_world} is made for MuJoCo 3.3.0, its rewards differ with {mujoco}; in an environment of its "
            "own: pip install -e '.[metaworld]'"
        )
    if mjx and mjx != mujoco:
        raise TroubleError(f"MJX {mjx} and MuJoCo {mujoco} must be of one version: pip install mujoco-mjx=={mujoco}")
    found = {"metaworld (ml1, ml10, ml25, ml45)": meta_world, "mjx (--backend mjx)": mjx, "warp (--backend warp)": warp}
    return "; ".join(f"{name}: {version or 'not installed'}" for name, version in found.items())


def devices() -> str:
    """JAX compiles and runs something."""
    import jax
    import jax.numpy as jnp

    found = jax.devices()
    start = time.monotonic()
    jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((512, 512))))
    kinds = dict.fromkeys(f"{device.platform} ({device.device_kind})" for device in found)
    note = ""
    if found[0].platform == "cpu" and nvidia():
        note = "; there is an NVIDIA GPU that JAX does not use: pip install -e '.[gpu]'"
    took = time.monotonic() - start
    return f"{len(found)} x {', '.join(kinds)}; a matrix product compiled and ran in {took:.1f} s{note}"


def nvidia() -> bool:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def precision() -> str:
    import jax

    if jax.config.jax_enable_x64:
        raise TroubleError("jax_enable_x64 is on, Nacre trains in float32; unset JAX_ENABLE_X64")
    return "off"


def threads() -> str:
    usable, there = _versions.cores(), os.cpu_count() or 1
    limited = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ}
    return f"{usable} of {there} cores may be used" + "".join(f", {name}={value}" for name, value in limited.items())


def flags() -> str:
    """Whether XLA runs as it was measured."""
    given = os.environ.get("XLA_FLAGS", "")
    if _platform.version("jax") not in _platform.TESTED:
        tried = ", ".join(sorted(_platform.TESTED))
        raise TroubleError(
            f"jax {_platform.version('jax')} was not measured, and Nacre sets no flags for it; where CPU updates are slow, "
            f"take one that was: {tried}"
        )
    return given or "none"


def cache() -> str:
    """Where compiled programs are kept."""
    path = _platform.cache_dir()
    trouble = _platform.cache_trouble(path)
    if trouble:
        raise TroubleError(
            f"compiled programs cannot be kept in {path} ({trouble}), so each start compiles anew; set NACRE_CACHE_DIR "
            "to a directory that can be written"
        )
    files = [file for file in path.iterdir() if file.is_file()]
    cut = [file for file in files if cut_off(file)]
    for file in cut:
        file.unlink(missing_ok=True)
    removed = f"; {len(cut)} damaged removed, which JAX would have warned of at every start" if cut else ""
    return f"{path}, {len(files)} files, {sum(file.stat().st_size for file in files if file not in cut) / 1e6:.0f} MB{removed}"


def cut_off(file: Path) -> bool:
    """Whether a compiled program was not written to its end (a kill, a full disk): JAX never replaces such a file."""
    if not file.name.endswith("-cache") or time.time() - file.stat().st_mtime < 60:  # it may be written just now
        return False
    data = file.read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":  # zstd, which JAX takes where there is one
        return False
    try:
        zlib.decompress(data)
    except zlib.error:
        return True
    return False


def opengl() -> str:
    """Renders in a process of its own: a broken driver may end it."""
    chosen = os.environ.get("MUJOCO_GL", "")
    for backend in [chosen] if chosen else ["", "egl", "osmesa"]:
        environ = {**os.environ, "MUJOCO_GL": backend} if backend else dict(os.environ)
        try:
            done = subprocess.run(
                [sys.executable, "-c", RENDER], env=environ, capture_output=True, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            if backend and not chosen:
                return f"works with MUJOCO_GL={backend}; set it for nacre watch on MuJoCo families"
            return f"works (MUJOCO_GL={backend or 'default'})"
    raise TroubleError(
        "no OpenGL for pictures of MuJoCo families (training does not need it); install EGL (Debian: libegl1, "
        "MUJOCO_GL=egl) or OSMesa (libosmesa6, MUJOCO_GL=osmesa)"
    )


def disk() -> str:
    """Room for runs in the current directory."""
    import shutil

    free = shutil.disk_usage(".").free
    if free < 2e9:
        raise TroubleError(
            f"{free / 1e9:.1f} GB are free here; a run can take 1 GB and more: free some, or use --out elsewhere"
        )
    return f"{free / 1e9:.0f} GB free in the current directory"
