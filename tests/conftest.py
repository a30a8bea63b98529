"""Compiling is most of the suite's time: programs are kept between tests and runs of it, and compiled with less care."""

import gc
import os
import tempfile
from pathlib import Path

from nacre import _platform

# Before JAX starts; processes that tests start inherit both. Together they more than halve what a program costs to compile;
# what they leave out are optimisations, so that results differ by rounding alone. Without the emitters programs run as fast,
# without optimisations a training takes four times as long: those marked `training` have them. Unknown flags abort the process.
EMITTERS = "--xla_cpu_use_fusion_emitters"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if _platform.version("jaxlib") in _platform.FLAGGED and EMITTERS not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EMITTERS}=false".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

# again, since a plugin of pytest's may have imported it before
LESS_CARE = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
jax.config.update("jax_disable_most_optimizations", LESS_CARE)
os.environ.setdefault("NACRE_CACHE_DIR", str(Path(tempfile.gettempdir()) / "nacre-test-cache"))
jax.config.update("jax_compilation_cache_dir", os.environ["NACRE_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", _platform.CACHE_SECONDS)
gc.freeze()  # what was imported is not searched for garbage again and again
gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _optimised(request):
    jax.config.update("jax_disable_most_optimizations", LESS_CARE and "training" not in request.keywords)


def pytest_runtest_teardown(item, nextitem):
    """Forgets a file's programs after it: each takes memory maps, of which a process has 65,530, and all together take more."""
    if nextitem is not None and nextitem.path != item.path:
        jax.clear_caches()
