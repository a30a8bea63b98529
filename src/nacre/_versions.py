"""With what a run was made: packages, machine, commit; and what of it is different now."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from nacre import _platform

# Packages that numbers depend on.
PACKAGES = (
    "nacre", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "mujoco", "gymnasium", "orbax-checkpoint",
    "metaworld",
)  # fmt: skip


def collect() -> dict[str, Any]:
    """Starts JAX's devices. Keys: python, packages, system, machine, cores, devices, xla_flags, git."""
    import jax

    return {
        "python": platform.python_version(),
        "packages": packages(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": cores(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": git_commit(Path(__file__).parent),
    }


def packages() -> dict[str, str]:
    found = {name: _platform.version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout that `folder` is a tracked part of, with "+changes" if it was modified; else None."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", "__init__.py"
        )  # site-packages inside of someone's checkout is not that checkout
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What numbers may depend on and is not as it was: 'jax 0.10.2, was 0.10.1'."""

    def flat(info: dict[str, Any]) -> dict[str, Any]:
        plain = {name: info.get(name) for name in ("python", "machine", "cores", "devices", "xla_flags", "git")}
        return {**plain, **info.get("packages", {})}

    old, new = flat(before), flat(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name} {_show(new.get(name))}, was {_show(old.get(name))}" for name in names]


def _show(value: Any) -> str:
    if isinstance(value, list):
        kinds = dict.fromkeys(value)
        return " and ".join(f"{value.count(kind)} x {kind}" for kind in kinds)
    return "nothing" if value in (None, "") else str(value)
