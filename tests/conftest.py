"""A strict process: warnings are errors, ranks are never promoted, eight simulated devices."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes in the annotations are checked where arithmetic happens.
install_import_hook(
    [f"ssl_guard.{name}" for name in ("losses", "algorithms", "steps")],
    "beartype.beartype",
)

jax.config.update("jax_numpy_rank_promotion", "raise")
# Eight devices on few cores: programs that wait for each other in flight could starve one another.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_compilation_cache_dir", os.path.abspath(".jax_cache/tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def minilm():
    """The folder of the pretrained encoder that quickstart.txt installs."""
    from ssl_guard.models import pretrained

    return pretrained.resolve("all-MiniLM-L6-v2")
