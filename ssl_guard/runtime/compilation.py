"""Sets XLA flags and the compilation cache."""

import importlib.util
import os
import sys
import zlib
from pathlib import Path

import jax

ONEDNN = "--xla_cpu_experimental_onednn_custom_call"


def configure(*, dtype: str, compilation_cache: str) -> None:
    """Sets XLA's CPU flags and the compilation cache; call it before the first computation.

    On CPUs, oneDNN computes bfloat16 matrix products several times faster; float32 gains little.
    Programs that call oneDNN cannot be cached, so on CPUs the cache is used for float32 only.
    Accelerators ignore the flag. A value already in XLA_FLAGS is kept.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if dtype == "bfloat16" and ONEDNN not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONEDNN}=true".strip()
    onednn = f"{ONEDNN}=true" in os.environ.get("XLA_FLAGS", "")
    if compilation_cache and not (onednn and jax.default_backend() == "cpu"):
        drop_half_written(Path(compilation_cache))
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(compilation_cache))


def drop_half_written(cache: Path) -> None:
    """Deletes programs in a compilation cache whose write was interrupted.

    JAX never overwrites a cached file, so it would recompile such a program at every start. Only
    files that are newer than the last check are decompressed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    looked = cache / "looked"
    last = looked.stat().st_mtime_ns if looked.exists() else 0
    looked.touch()
    for path in cache.glob("*-cache"):
        try:
            if path.stat().st_mtime_ns >= last:
                _unpacker()(path.read_bytes())
        except Exception:  # each decompressor has its own
            path.unlink(missing_ok=True)


def _unpacker():
    """Returns the decompressor that JAX uses, the first of these that is installed."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.decompress
    if importlib.util.find_spec("zstandard"):
        import zstandard

        return zstandard.ZstdDecompressor().decompress
    return zlib.decompress
