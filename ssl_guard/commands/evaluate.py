"""Scores corpora with a finished run and prints a table.

    python -m ssl_guard evaluate --workdir=runs/uda --corpora=my.jsonl,test,dev
    python -m ssl_guard evaluate --workdir=runs/uda --corpora=my.jsonl \\
        --over_refusal=xstest.jsonl --robustness=leetspeak,spacing \\
        --policy=policy.json --profile=permissive,strict
    python -m ssl_guard evaluate --workdir=runs/uda --corpora=my.jsonl \\
        --scorers=hf:/models/toxic-bert,moderation:https://api.openai.com/v1

A corpus is a file, a name of `ssl_guard data list`, or a side of the run's own split. Writes
RUN/evaluations/, a file for each corpus and threshold policy. Near-duplicates of rows that the run
has seen are left out and counted. --scorers scores the same rows with other classifiers and writes
RUN/peers/<name>/evaluations/.
"""

import functools
import os

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    workdir = cli.required(WORKDIR, "workdir")
    if not CORPORA.value and not OVER_REFUSAL.value:
        raise BadInput("--corpora is missing: files, names of corpora, or test, dev.")
    if PROFILE.value not in (None, ["dev_best_f1"]) and POLICY.value is None:
        raise BadInput("--profile selects thresholds of a --policy: give its policy.json.")
    from ssl_guard.data.corpora.reading import names_in
    from ssl_guard.evaluation import evaluate, external, table

    for spec in SCORERS.value:
        external.check_spec(spec)

    open_scorer = functools.partial(
        external.open_scorer,
        harmful=HARMFUL_LABELS.value,
        model=MODERATION_MODEL.value,
        key=os.environ.get(KEY_VARIABLE.value, ""),
    )
    found = evaluate.evaluate_run(
        workdir,
        names_in(",".join(CORPORA.value)),
        over_refusal=names_in(",".join(OVER_REFUSAL.value)),
        attacks=ROBUSTNESS.value,
        policy=POLICY.value,
        profiles=PROFILE.value or ["balanced"],
        threshold=THRESHOLD.value,
        read_as={
            "columns": cli.pairs("columns", COLUMNS.value),
            "harmful": tuple(HARMFUL_VALUES.value),
            "safe": tuple(SAFE_VALUES.value),
        },
        slices=evaluate.SLICES if SLICES.value is None else SLICES.value,
        keep_seen=KEEP_SEEN.value,
        others=[functools.partial(open_scorer, spec) for spec in SCORERS.value],
    )
    print(table.table(found), "", *table.notes(found), sep="\n")
    print(f"written to {workdir}/evaluations")
    if any(evaluation["scorer"]["workdir"] != str(workdir) for evaluation in found):
        print(f"and to {workdir}/peers")


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "A finished run.")
    CORPORA = flags.DEFINE_list("corpora", [], "Files, names of corpora, or test, dev.")
    OVER_REFUSAL = flags.DEFINE_list("over_refusal", [], "Corpora whose safe rows look harmful.")
    ROBUSTNESS = flags.DEFINE_list("robustness", [], "Obfuscations to apply to harmful rows.")
    POLICY = flags.DEFINE_string("policy", None, "A policy.json of ssl_guard calibrate.")
    PROFILE = flags.DEFINE_list("profile", None, "Thresholds of the policy (balanced).")
    THRESHOLD = flags.DEFINE_float(
        "threshold", None, "A threshold to use instead of the best on dev."
    )
    COLUMNS = flags.DEFINE_list("columns", [], "Columns of the files, e.g. label=is_harmful.")
    HARMFUL_VALUES = flags.DEFINE_list("harmful_values", [], "Label values that mean harmful.")
    SAFE_VALUES = flags.DEFINE_list("safe_values", [], "Label values that mean safe.")
    SLICES = flags.DEFINE_list("slices", None, "Columns of files to slice by (source,adversarial).")
    KEEP_SEEN = flags.DEFINE_bool("keep_seen", False, "Keeps near-duplicates of seen rows.")
    SCORERS = flags.DEFINE_list("scorers", [], "Other classifiers: hf:FOLDER, moderation:URL.")
    HARMFUL_LABELS = flags.DEFINE_list("harmful_labels", [], "Labels of hf: that mean harmful.")
    MODERATION_MODEL = flags.DEFINE_string("moderation_model", "", "Model of moderation:, if any.")
    KEY_VARIABLE = flags.DEFINE_string(
        "key_variable", "MODERATION_API_KEY", "Environment variable with the endpoint's key."
    )
    cli.run(main)
