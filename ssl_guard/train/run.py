"""Trains one run to its report."""

from pathlib import Path

from ml_collections import ConfigDict

from ssl_guard import algorithms
from ssl_guard import config as config_module
from ssl_guard.evaluation import run_report
from ssl_guard.runtime import processes
from ssl_guard.runtime.files import check_folder
from ssl_guard.train import baselines, folds, gradient
from ssl_guard.train.workdir import finished, opened, refuse_other_soft_labels


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict:
    """Trains one run and returns its report, which is also in `workdir/report.json`.

    The same call on the same workdir resumes; a finished run returns at once. Raises BadInput for a
    workdir of another config or of other soft labels or in use by another process and for any other
    input that the user can correct, Preempted when a signal stopped the training.
    """
    workdir = Path(workdir)
    config_module.check(config)
    config_module.refuse_other(workdir, config)
    if config.data.soft_labels:
        refuse_other_soft_labels(workdir, Path(config.data.soft_labels))
    if (report := finished(workdir)) is not None:
        return report
    check_folder(workdir, "--workdir")
    chosen = None
    if of_folds := folds.plan(config, workdir):
        for fold_config, fold_workdir in of_folds:
            train_and_evaluate(fold_config, fold_workdir)
        runs, select_by = [folder for _, folder in of_folds], config.train.select_by
        chosen = processes.first_process_first(lambda: folds.choose(runs, select_by))
    method = baselines if config.algorithm in algorithms.CLOSED_FORM else gradient
    prepared, fit = method.build(config, chosen)  # reads all input; a refused run wrote nothing
    with opened(workdir, config, prepared) as (files, checkpoints):
        result = fit(files, checkpoints)
        # Dev or the folds chose step and threshold. Calibration and test are read once, here.
        if prepared.calibration is not None:
            run_report.write_predictions(
                files / "calibration.jsonl",
                prepared.calibration,
                prepared.calibration_groups,
                **result.scores("calibration"),
            )
        return run_report.write_report(
            files,
            config,
            prepared,
            result.dev,
            result.scores("test"),
            steps=result.steps,
            selected_step=result.selected_step,
            checkpoint_sha256=result.checkpoint_sha256,
            diagnostics=result.diagnostics,
        )
