"""Scores the rows that a run was evaluated on with other classifiers.

    python -m ssl_guard external --workdir=runs/uda --corpora=my.jsonl \\
        --peers=hf:/models/toxic-bert,moderation:https://api.openai.com/v1
"""

import json
import os
import sys
from pathlib import Path

from absl import flags

from ssl_guard.data.schema import label_map
from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    workdir = Path(cli.required(WORKDIR, "workdir"))
    asked, specs = cli.required(CORPORA, "corpora"), cli.required(PEERS, "peers")
    from ssl_guard.evaluation.external import examine, exams_of, peer_of
    from ssl_guard.evaluation.scorer import read_config
    from ssl_guard.prepare import read_split
    from ssl_guard.runtime import compilation

    config = read_config(workdir)
    compilation.configure(dtype="float32", compilation_cache=config.compilation_cache)
    source = read_split(config)
    exams = exams_of(
        workdir,
        config,
        source,
        asked,
        columns=cli.pairs("columns", COLUMNS.value),
        labels=label_map(HARMFUL_VALUES.value, SAFE_VALUES.value),
    )
    how = {"buckets": tuple(config.data.buckets), "resamples": config.eval.bootstrap_samples}
    key, names, written = os.environ.get(KEY.value, ""), set(), []
    for spec in specs:
        try:
            peer = peer_of(spec, harmful=HARMFUL_LABELS.value, model=MODEL.value, key=key)
            if peer.name in names:
                raise BadInput(f"two peers are called {peer.name}: rename one, or run it alone.")
            names.add(peer.name)
            written += examine(peer, exams, source.rows["dev"], workdir, **how)
        except BadInput as error:
            print(f"ssl_guard: a peer is left out: {error}", file=sys.stderr)
    for path in written:
        evaluation = json.loads(path.read_text())
        cohort, scores = evaluation["cohort"], evaluation["scores"]["raw"]
        shown = {name: round(scores[name]["value"], 4) for name in ("f1", "auprc")}
        print(f"{path}: {cohort['rows']} rows, {json.dumps(shown)}")
        if evaluation["missing"]:
            print(f"  {len(evaluation['missing'])} rows failed: not comparable with the run")


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "A finished run that was evaluated.")
    CORPORA = flags.DEFINE_list("corpora", None, "Those of ssl_guard evaluate, comma-separated.")
    PEERS = flags.DEFINE_list("peers", None, "hf:FOLDER and moderation:URL, comma-separated.")
    COLUMNS = flags.DEFINE_list("columns", [], "As for ssl_guard evaluate.")
    HARMFUL_VALUES = flags.DEFINE_list("harmful_values", [], "As for ssl_guard evaluate.")
    SAFE_VALUES = flags.DEFINE_list("safe_values", [], "As for ssl_guard evaluate.")
    HARMFUL_LABELS = flags.DEFINE_list("harmful_labels", [], "Of hf: outputs that mean harmful.")
    MODEL = flags.DEFINE_string("moderation_model", "", "Of moderation: the model to ask for.")
    KEY = flags.DEFINE_string("key_variable", "MODERATION_API_KEY", "Holds the endpoint's key.")
    cli.run(main)
