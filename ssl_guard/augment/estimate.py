"""Estimates the requests and the cost of a set."""

import itertools
from collections.abc import Sequence

from ssl_guard.augment import make, recipe, run, stats
from ssl_guard.augment.job import Job
from ssl_guard.data.schema import Example


def estimate(job: Job, pool: Sequence[Example], fit_on: Sequence[Example]) -> dict:
    """Estimates the requests and the cost of the first stage of a set. Sends nothing.

    Later stages are left out, since they depend on what the gates reject.
    """
    found: dict = {"set": job.folder.name, "rows": len(pool), "views": len(pool) * job.copies}
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
            for name, cost in recipe.estimates(stage, rewrites[part], texts, rngs):
                for key, value in cost._asdict().items():
                    stats.add(found, "estimates", name, key, by=value)
    return found
