"""A strict process: warnings are errors, ranks are never promoted, eight simulated devices."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest
from jax._src.lru_cache import LRUCache
from jaxtyping import install_import_hook

# Shapes and dtypes in the annotations are checked where arithmetic happens.
HOOKED = ("algorithms", "steps.training", "steps.accumulate", "steps.predict")
install_import_hook(
    [f"ssl_guard.{name}" for name in HOOKED],
    "beartype.beartype",
)

jax.config.update("jax_numpy_rank_promotion", "raise")
# Eight devices on few cores: programs that wait for each other in flight could starve one another.
jax.config.update("jax_cpu_enable_async_dispatch", False)
# Compiling takes most of the time, so the workers share what they compile.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.path.abspath(".jax_cache/tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def put(cache, key, value):
    """Writes a program in one move; JAX writes in place, where another worker may read half."""
    temporary = cache.path / f".{key}.{os.getpid()}"
    temporary.write_bytes(value)
    temporary.replace(cache.path / f"{key}-cache")


LRUCache.put = put


# Files of half a minute and more.
LONG = (
    "test_devices",
    "test_encoders",
    "test_faults",
    "test_masked_lm",
    "test_monitor",
    "test_resume",
    "test_runs",
    "test_runs_of_processes",
    "test_self_training",
    "test_train",
)


def pytest_collection_modifyitems(items):
    """Puts the long files first, so that workers end together."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="module")
def optimised():
    """Compiles as users do, for modules that compare bits or read compiled programs."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def shared_programs():
    """Caches even the smallest programs, for modules that start the same run several times."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def minilm():
    """The folder of the pretrained encoder that quickstart.txt installs."""
    from ssl_guard.models import pretrained

    return pretrained.resolve("all-MiniLM-L6-v2")
