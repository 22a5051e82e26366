"""Trains and evaluates one run.

    python -m ssl_guard.main --config=configs/uda.py --workdir=runs/uda

The same command resumes an interrupted run and returns at once from a finished one.
"""

import json

from absl import flags
from ml_collections import config_flags

from ssl_guard import cli, mlm, processes, runtime
from ssl_guard.train import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; the same one resumes it.")

# TPU pods, SLURM and GKE need none of these.
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of the first process.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "How many run this command.")
PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(argv: list[str]) -> None:
    config, workdir = cli.required(CONFIG, "config"), cli.required(WORKDIR, "workdir")
    processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    runtime.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    if config.algorithm == "mlm":
        report = mlm.pretrain(config, workdir)
        print(f"{workdir}/encoder: held out {json.dumps(report['held_out'])}")
        return
    report = train_and_evaluate(config, workdir)
    test = report["test"][report["weights"]]
    shown = {
        name: round(test[name]["value"], 4) for name in ("f1", "auprc", "recall_at_1_fpr", "ece")
    }
    print(f"{workdir}: step {report['selected_step']}, test {json.dumps(shown)}")


if __name__ == "__main__":
    cli.run(main)
