"""Writes new prompts with a chat model for the unlabelled pool.

    python -m ssl_guard generate --config=configs/augment/llm.py \\
        --sources=labelled.jsonl --intended=safe --out=lookalikes.jsonl
"""

import json
import os
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ssl_guard.augment.llm import generate, rewrite
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/; its augment.llm.")
SOURCES = flags.DEFINE_string("sources", None, "A file of prompts with labels.")
OUT = flags.DEFINE_string("out", None, "The JSON lines to write.")
INTENDED = flags.DEFINE_enum("intended", None, list(generate.TEMPLATES), "Kind of prompt.")
COPIES = flags.DEFINE_integer("copies", 1, "Prompts to ask for from each source.", 1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what it would cost, and ask nothing.")


def main(argv: list[str]) -> None:
    config, out = cli.required(CONFIG, "config"), Path(cli.required(OUT, "out"))
    intended = cli.required(INTENDED, "intended")
    if "llm" not in config.augment:
        raise BadInput("the config has no group config.augment.llm: say there which model to ask.")
    sources = generate.sources_of(cli.required(SOURCES, "sources"))
    arguments = dict(config.augment.llm) | {"template": generate.TEMPLATES[intended]}
    rewriter = rewrite.llm((), **arguments)
    if DRY_RUN.value:
        rows = [(source, copy) for source in sources for copy in range(COPIES.value)]
        texts = [source.prompt for source, _ in rows]
        print(json.dumps(rewriter.estimate(texts, generate.rngs(rows, config.seed))._asdict()))
        return
    written = list(generate.generate(sources, rewriter, copies=COPIES.value, seed=config.seed))
    kept = generate.distinct(sources, written)
    about = {"intended": intended, **rewriter.manifest}
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "w", encoding="utf-8") as file:
        for row_id, prompt in kept:
            file.write(json.dumps({"id": row_id, "prompt": prompt, **about}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, out)
    account, asked = rewriter.account, len(sources) * COPIES.value
    print(
        f"{out}: {len(kept)} prompts; left out {asked - len(written)} that could not be used and "
        f"{len(written) - len(kept)} near-duplicates; {account.requests} requests, cost "
        f"{account.most_cost:.4f}"
    )


if __name__ == "__main__":
    cli.run(main)
