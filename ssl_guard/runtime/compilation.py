"""What XLA is told before it starts."""

import importlib.util
import os
import sys
import zlib
from pathlib import Path

import jax

ONEDNN = "--xla_cpu_experimental_onednn_custom_call"


def configure(*, dtype: str, compilation_cache: str) -> None:
    """Sets CPU flags and the compilation cache; call it before the first computation.

    On CPUs, bfloat16 matrix products are sent to oneDNN (training is several times faster than
    without; float32 gains little), and such programs cannot be written to the cache, so there it is
    used for float32 only. Accelerators ignore the flag. XLA_FLAGS that name it already stay.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if dtype == "bfloat16" and ONEDNN not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONEDNN}=true".strip()
    onednn = f"{ONEDNN}=true" in os.environ.get("XLA_FLAGS", "")
    if compilation_cache and not (onednn and jax.default_backend() == "cpu"):
        drop_half_written(Path(compilation_cache))
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(compilation_cache))


def drop_half_written(cache: Path) -> None:
    """Deletes the programs in a compilation cache that a kill has cut off.

    JAX would warn of one and compile it again at every start, for it never writes over a file.
    Only programs that are younger than the last look are unpacked.
    """
    cache.mkdir(parents=True, exist_ok=True)
    looked = cache / "looked"
    last = looked.stat().st_mtime_ns if looked.exists() else 0
    looked.touch()
    for path in cache.glob("*-cache"):
        try:
            if path.stat().st_mtime_ns >= last:
                _unpacker()(path.read_bytes())
        except Exception:  # of whichever library
            path.unlink(missing_ok=True)


def _unpacker():
    """What JAX unpacks programs with: the first of these that is installed."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.decompress
    if importlib.util.find_spec("zstandard"):
        import zstandard

        return zstandard.ZstdDecompressor().decompress
    return zlib.decompress
