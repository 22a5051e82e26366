"""Trains and evaluates one run.

    python -m ssl_guard.main --config=configs/uda.py --workdir=runs/uda
    python -m ssl_guard.main --config=configs/uda.py --workdir=runs/uda-1 \\
        --config.seed=1 --config.train.steps=200 --config.data.corpus=my.jsonl
    python -m ssl_guard mlm --config=configs/mlm.py --workdir=runs/mlm

Every key of the config can be overridden so; ssl_guard/config/defaults.py explains them. The same
command resumes an interrupted run and returns at once from a finished one. SIGTERM and Ctrl-C save
a checkpoint and end with exit code 143 or 130, after which a scheduler may start the command again.
`mlm` is the same program: configs/mlm.py pre-trains an encoder instead of a classifier.
"""

import json
import sys

from absl import flags
from ml_collections import config_flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "A config file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing one is resumed.")

# TPU pods, SLURM and GKE need none of these.
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of the first process.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def main(argv: list[str]) -> None:
    config, workdir = cli.required(CONFIG, "config"), cli.required(WORKDIR, "workdir")
    if sys.argv[0].endswith(" mlm") and config.algorithm != "mlm":
        raise BadInput(f"mlm takes configs/mlm.py, not a config of {config.algorithm}: use train.")
    from ssl_guard.runtime import compilation, preemption, processes

    processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    preemption.listen()
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    try:
        summary = _run(config, workdir)
        preemption.finish()
        print(summary)
    except preemption.Preempted as stopped:
        print(f"ssl_guard: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)


def _run(config, workdir: str) -> str:
    """Runs to the end and returns a summary."""
    from ssl_guard.data import contamination
    from ssl_guard.data.schema import left_out_notes, licence_notes
    from ssl_guard.train import masked_lm
    from ssl_guard.train.run import train_and_evaluate

    if config.algorithm == "mlm":
        report = masked_lm.pretrain(config, workdir)
        return f"{workdir}/encoder: held out {json.dumps(report['held_out'])}"
    report = train_and_evaluate(config, workdir)
    test = report["test"][report["weights"]]
    shown = {
        name: round(test[name]["value"], 4) for name in ("f1", "auprc", "recall_at_1_fpr", "ece")
    }
    line = f"{workdir}: step {report['selected_step']}, test {json.dumps(shown)}"
    notes = left_out_notes(report["data"].get("left_out", {}))
    notes += licence_notes(report["data"]["licence"])
    return "\n".join([line, contamination.note(report["contamination"]), *notes])


if __name__ == "__main__":
    cli.run(main)
