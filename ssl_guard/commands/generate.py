"""Writes new prompts with a chat model for the unlabelled pool.

    python -m ssl_guard generate --config=configs/augment/llm.py \\
        --sources=labelled.jsonl --intended=safe --out=lookalikes.jsonl

The model is the one of config.augment.llm. The same command continues an interrupted one from
config.augment.llm.cache.
"""

import json

from absl import flags
from ml_collections import config_flags

from ssl_guard import config as config_module
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli

KINDS = ("harmful", "safe")


def main(argv: list[str]) -> None:
    config, out = cli.required(CONFIG, "config"), cli.required(OUT, "out")
    config_module.check(config)
    intended = cli.required(INTENDED, "intended")
    if "llm" not in config.augment:
        raise BadInput("the config has no group config.augment.llm: set the model there.")
    from ssl_guard.augment.llm import generate

    sources = generate.sources_of(cli.required(SOURCES, "sources"))
    rewriter = generate.rewriter_of(intended, dict(config.augment.llm))
    how = {"copies": COPIES.value, "seed": config.seed}
    if DRY_RUN.value:
        print(json.dumps(generate.estimate(sources, rewriter, **how)._asdict()))
    else:
        print(generate.write(out, sources, rewriter, intended=intended, **how))


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A file with config.augment.llm.")
    SOURCES = flags.DEFINE_string("sources", None, "A file of labelled prompts.")
    OUT = flags.DEFINE_string("out", None, "The file of JSON lines to write.")
    INTENDED = flags.DEFINE_enum("intended", None, KINDS, "Kind of prompt to ask for.")
    COPIES = flags.DEFINE_integer("copies", 1, "Prompts to ask for from each source.", 1)
    DRY_RUN = flags.DEFINE_bool("dry_run", False, "Prints the cost and asks nothing.")
    cli.run(main)
