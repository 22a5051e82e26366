"""Writes soft labels of the unlabelled pool with a set of teachers.

    python -m ssl_guard teach --config=configs/self_training.py --to=runs/soft \\
        --teachers=runs/supervised,runs/graph,scores:judge.jsonl
    python -m ssl_guard.main --config=configs/self_training.py --workdir=runs/student \\
        --config.data.soft_labels=runs/soft

A teacher is a finished run of any method on the same split, hf:FOLDER, scores:FILE with lines
{"id", "score"} for the pool and dev, or states:FILE with features of the rows of any model. See
ssl_guard/evaluation/teachers.py.
"""

from absl import flags
from ml_collections import config_flags

from ssl_guard import config as config_module
from ssl_guard.runtime import cli


def table(results: dict) -> str:
    """Formats the dev scores of the teachers and of their soft labels."""
    from tabulate import tabulate

    rows = [*results["teachers"], {"name": "soft labels", "dev": results["dev"]}]
    shown = [
        [row["name"], *(f"{100 * row['dev'][m]:.1f}" for m in ("auprc", "f1"))] for row in rows
    ]
    titles = ["teacher", "dev AUPRC, %", "dev F1, %"]
    return tabulate(shown, titles, tablefmt="github", disable_numparse=True)


def main(argv: list[str]) -> None:
    config, folder = cli.required(CONFIG, "config"), cli.required(TO, "to")
    config_module.check(config)
    from ssl_guard.evaluation import teach
    from ssl_guard.runtime import compilation

    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    results = teach.teach(config, TEACHERS.value, folder)["results"]
    print(table(results))
    print(f"{folder}: {results['used']} soft labels, {results['harmful_share']:.0%} harmful")


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A config file of configs/.")
    TEACHERS = flags.DEFINE_list("teachers", [], "Runs, hf:FOLDER, scores:FILE, states:FILE.")
    TO = flags.DEFINE_string("to", None, "Folder of the soft labels.")
    cli.run(main)
