"""Compiling is most of the suite's time: programs are kept between tests and runs of it, and compiled with less care."""

import gc
import os
import tempfile
from pathlib import Path

from nacre import _platform

# Before JAX starts; processes that tests start inherit both. Together they more than halve what a program costs to compile.
# What they leave out are optimisations, so that results differ by rounding alone. Unknown flags abort the process.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if _platform.version("jaxlib") in _platform.TESTED:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest

os.environ.setdefault("NACRE_CACHE_DIR", str(Path(tempfile.gettempdir()) / "nacre-test-cache"))
jax.config.update(
    "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
)  # were it imported before
jax.config.update("jax_compilation_cache_dir", os.environ["NACRE_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
gc.freeze()  # what was imported is not searched for garbage again and again
gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def key():
    return jax.random.key(0)
