"""Prepares JAX: XLA's flags before it starts, the cache of compiled programs, and what Nacre cannot work with.

Importing this module imports nothing of JAX; `nacre/__init__.py` calls `set_flags`, so flags are set before any part
of Nacre can start JAX.
"""

import importlib.metadata
import os
import sys
import tempfile
import warnings
from pathlib import Path

from nacre._errors import UserError

# XLA's fusion of CPU operations into library calls costs 15-28 % of a feed-forward update, and in jaxlib 0.10.2 computes some
# programs wrongly (tests/test_runs.py has one). An empty value switches it off. Unknown flags abort the process, so this is done
# only for versions of JAX that were tried. 0.12.0.1 is right and as fast without.
FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FLAGGED = frozenset({"0.10.2"})
TESTED = FLAGGED | {"0.12.0.1"}
CACHE_SECONDS = 0.0  # every program: families on the host start with some 200 small ones, 0.03 s each


def set_flags(environ: dict[str, str] | os._Environ = os.environ) -> None:
    """Switch the library fusion off where JAX needs that, unless the user has set that flag."""
    flags = environ.get("XLA_FLAGS", "")
    if FUSION_FLAG in flags or version("jax") not in FLAGGED or version("jaxlib") not in FLAGGED:
        return
    if started():
        warnings.warn(
            "JAX was at work before Nacre was imported, so that an XLA flag comes too late without which jaxlib 0.10.2 computes "
            "some programs wrongly on CPUs: import nacre first",
            stacklevel=3,
        )
    environ["XLA_FLAGS"] = f"{flags} {FUSION_FLAG}=".strip()


def started() -> bool:
    """Whether JAX has its devices, after which flags do nothing."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "backends_are_initialized", lambda: False)())


def version(package: str) -> str | None:
    """Installed version, without importing the package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cache_dir() -> Path:
    """$NACRE_CACHE_DIR, or nacre/xla in the user's cache directory."""
    given = os.environ.get("NACRE_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nacre" / "xla"


def cache_trouble(path: Path) -> str | None:
    """Why compiled programs cannot be kept in `path`; None if they can."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return None
    except OSError as error:
        return error.strerror or str(error)


def prepare() -> None:
    """Keep compiled programs on disk, and refuse what Nacre cannot work with. Starts no device.

    A cache directory that the user has set for JAX stays. Raises UserError in 64-bit mode.
    """
    import jax

    if jax.config.jax_enable_x64:
        raise UserError(
            "JAX is in 64-bit mode (jax_enable_x64 is on): Nacre trains in float32, and mixed types would double "
            "memory and time; unset JAX_ENABLE_X64, or remove jax.config.update('jax_enable_x64', True)"
        )
    warnings.filterwarnings("ignore", message=".*donated buffers were not usable.*")
    if jax.config.jax_compilation_cache_dir:
        return
    path = cache_dir()
    trouble = cache_trouble(path)
    if trouble:
        print(
            f"warning: compiled programs cannot be kept in {path} ({trouble}), so each start compiles anew; set "
            "NACRE_CACHE_DIR to a directory that can be written",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
