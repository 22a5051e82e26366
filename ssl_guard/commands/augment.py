"""Makes an augmentation set: strong views of a run's unlabelled rows.

    python -m ssl_guard augment --config=configs/augment/eda.py
    python -m ssl_guard augment --config=configs/augment/llm.py --dry_run
    python -m ssl_guard augment --config=configs/augment/eda.py --workers=2 \\
        --config.augment.copies=2

config.augment.name is the name of the set and config.augment.ops its recipe. Training reads the set
of its own config, or those that config.augment.sets names. The same command resumes an interrupted
set and returns at once from a finished one.
"""

import json
import sys

from absl import flags
from ml_collections import config_flags

from ssl_guard import config as config_module
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    config = cli.required(CONFIG, "config")
    config_module.check(config)
    import functools

    from ssl_guard.augment import estimate, make, select, stats, text_set
    from ssl_guard.evaluation import model_gates, prepare
    from ssl_guard.runtime import compilation

    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    source = prepare.read_split(config)
    spec = prepare.DataSpec(config).sets
    settings = spec.model_gates
    asked = settings["similarity"] or settings["classifier"]
    job = select.own_job(
        spec, source, judges=functools.partial(model_gates.build, **settings) if asked else None
    )
    pool = source.rows["unlabelled"]
    fit_on = source.rows["labelled"] + pool
    if DRY_RUN.value:
        print(json.dumps(estimate.estimate(job, pool, fit_on), indent=1))
        return
    if WORKERS.value < 1:
        raise BadInput(f"--workers={WORKERS.value} must be at least 1.")
    if (job.folder / "manifest.json").exists() and not OVERWRITE.value:
        again = f"make it again with: {cli.again('augment')} --overwrite"
        there = text_set.open_set(
            job.folder, pool=source.hashes, made_from=job.made_from, again=again
        )
        text_set.check(there, again=again)
        manifest = there.manifest
    else:
        classifier = settings["classifier"]
        kinds = model_gates.kinds(pool, classifier) if classifier else None
        if RUNNER.value == "local":
            manifest = make.make_set(
                job,
                pool,
                fit_on=fit_on,
                kinds=kinds,
                overwrite=OVERWRITE.value,
                workers=WORKERS.value,
                progress=sys.stderr.isatty(),
            )
        else:
            try:
                from ssl_guard.augment import beam
            except ImportError as error:
                raise BadInput(cli.NO_BEAM.format(runner=RUNNER.value)) from error
            make.stage(job, pool, fit_on=fit_on, kinds=kinds, overwrite=OVERWRITE.value)
            beam.make_shards(job, runner=RUNNER.value, options=BEAM_OPTIONS.value)
            manifest = make.finish(job)
    print(stats.table(manifest["account"]))
    print(f"\n{job.folder}: {manifest['count']} views of {len(pool)} rows")


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A config file of configs/.")
    OVERWRITE = flags.DEFINE_bool("overwrite", False, "Makes an existing set again.")
    DRY_RUN = flags.DEFINE_bool("dry_run", False, "Prints requests and cost only.")
    WORKERS = flags.DEFINE_integer("workers", 1, "Number of local processes.")
    RUNNER = flags.DEFINE_enum("runner", "local", cli.RUNNERS, "local, or an Apache Beam runner.")
    BEAM_OPTIONS = flags.DEFINE_multi_string("beam_options", [], "Options for Beam.")
    cli.run(main)
