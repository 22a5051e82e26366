"""Draws the split of a run and writes its shards.

    python -m ssl_guard prepare --config=configs/uda.py
    python -m ssl_guard prepare --config=configs/uda.py --config.data.labelled=200 --overwrite

Training does the same by itself where something is missing. Shards that were made with other
settings are refused until --overwrite makes them again.
"""

import json

from absl import flags
from ml_collections import config_flags

from ssl_guard import config as config_module
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    config = cli.required(CONFIG, "config")
    config_module.check(config)
    from ssl_guard.evaluation.prepare import prepare, views_of

    prepared = prepare(config, views=views_of(config), overwrite=OVERWRITE.value)
    print(json.dumps(prepared.summary, indent=1))


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A config file of configs/.")
    OVERWRITE = flags.DEFINE_bool("overwrite", False, "Makes existing shards again.")
    cli.run(main)
