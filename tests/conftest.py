"""Compiled programs are kept between tests and runs of the suite: compiling is most of its time."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

os.environ.setdefault("NACRE_CACHE_DIR", str(Path(tempfile.gettempdir()) / "nacre-test-cache"))
jax.config.update("jax_compilation_cache_dir", os.environ["NACRE_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def key():
    return jax.random.key(0)
