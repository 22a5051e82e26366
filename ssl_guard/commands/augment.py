"""Makes an augmentation set of a run's unlabelled pool.

    python -m ssl_guard augment --config=configs/augment/eda.py [--workers=2] [--dry_run]

The set is called config.augment.name and made by config.augment.ops; training reads it when that is
its config's own, or when config.augment.sets names it. The same command goes on with a set that was
interrupted, and returns at once from one that is there.
"""

import functools
import itertools
import json
import sys
from collections.abc import Iterator, Sequence

from absl import flags
from ml_collections import config_flags

from ssl_guard import config as config_module
from ssl_guard import prepare as prepare_module
from ssl_guard.augment import make, recipe, run, select, stats, text_set
from ssl_guard.augment.gates import Text
from ssl_guard.augment.job import Job
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import model_gates
from ssl_guard.runtime import cli, compilation

RUNNERS = ("local", "direct", "flink", "spark", "dataflow")


def main(argv: list[str]) -> None:
    config = cli.required(CONFIG, "config")
    config_module.check(config)
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    source = prepare_module.read_split(config)
    spec = prepare_module.DataSpec(config).sets
    settings = spec.model_gates
    asked = settings["similarity"] or settings["classifier"]
    job = select.own_job(
        spec, source, judges=functools.partial(model_gates.build, **settings) if asked else None
    )
    pool = source.rows["unlabelled"]
    fit_on = source.rows["labelled"] + pool
    if DRY_RUN.value:
        print(json.dumps(dry_run(job, pool, fit_on), indent=1))
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
        how = {"fit_on": fit_on, "overwrite": OVERWRITE.value}
        if settings["classifier"]:
            how["kinds"] = kinds(pool, settings["classifier"])
        if RUNNER.value == "local":
            progress = sys.stderr.isatty()
            manifest = make.make_set(job, pool, workers=WORKERS.value, progress=progress, **how)
        else:
            try:
                from ssl_guard.augment import beam
            except ImportError as error:
                raise BadInput(
                    f"--runner={RUNNER.value} needs Apache Beam: pip install 'ssl_guard[beam]' in "
                    "an environment of its own, see requirements/beam.txt."
                ) from error
            make.stage(job, pool, **how)
            beam.make_shards(job, runner=RUNNER.value, options=BEAM_OPTIONS.value)
            manifest = make.finish(job)
    print(stats.table(manifest["account"]))
    print(f"\n{job.folder}: {manifest['count']} views of {len(pool)} rows")


def kinds(pool: Sequence[Example], classifier: str) -> Iterator[str]:
    """The rows' classes for the account: of the label where it is known, else the classifier's."""
    classify = model_gates.open_classifier(classifier)
    examples = iter(pool)
    while chunk := list(itertools.islice(examples, 16 * make.CHUNK)):
        texts = [Text(e.prompt, e.response) for e in chunk if e.label is None]
        found = iter(classify(texts) if texts else ())
        yield from (next(found) if e.label is None else make.kind_of(e) for e in chunk)


def dry_run(job: Job, pool: Sequence[Example], fit_on: Sequence[Example]) -> dict:
    """What the first stage would be asked for, and what its models would cost; nothing is asked.

    Later stages are not in it: what they are asked for depends on what is rejected.
    """
    found = {"set": job.folder.name, "rows": len(pool), "views": len(pool) * job.copies}
    found |= {"texts": 0, "characters": 0}
    stage = recipe.parse(job.ops)[0]
    rewrites = make.open_rewrites(job, [stage], lambda: make.distinct_texts(fit_on))
    examples = iter(pool)
    while chunk := list(itertools.islice(examples, make.CHUNK)):
        for part in (run.PROMPT, run.RESPONSE):
            parts = [
                (text, run.make_rng(job.seed, example.id, copy, part))
                for example in chunk
                if (text := (example.prompt, example.response)[part]) is not None
                for copy in range(job.copies)
            ]
            texts, rngs = [text for text, _ in parts], [rng for _, rng in parts]
            found["texts"] += len(texts)
            found["characters"] += sum(map(len, texts))
            for name, estimate in recipe.estimates(stage, rewrites[part], texts, rngs):
                for key, value in estimate._asdict().items():
                    stats.add(found, "estimates", name, key, by=value)
    return found


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/augment/.")
    OVERWRITE = flags.DEFINE_bool("overwrite", False, "Makes a set again that is there.")
    DRY_RUN = flags.DEFINE_bool("dry_run", False, "Counts what would be asked, and its price.")
    WORKERS = flags.DEFINE_integer("workers", 1, "Local processes.")
    RUNNER = flags.DEFINE_enum("runner", "local", RUNNERS, "Who makes the shards.")
    BEAM_OPTIONS = flags.DEFINE_multi_string("beam_options", [], "Options for Beam, one each.")
    cli.run(main)
