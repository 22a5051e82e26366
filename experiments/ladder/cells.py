"""The ladder: cheap models, their ensemble, the graph, and students of teachers, one change a row.

Rows and labels are those of experiments/methods. A cell is one arm and one seed, which draws
labelled and dev rows; the test rows are the same.
"""

import re

import numpy as np

from experiments.methods import cells as methods
from experiments.sweep import Cell, product, taught
from experiments.tables import github, runs_of
from ssl_guard.evaluation.table import cell
from ssl_guard.report import comparison, results

SEEDS = {"first": range(5), "confirming": range(5, 10)}
LABELLED = {"graph.nodes": "labelled"}
UNSMOOTHED = {"graph.alpha": 0.0}
# {arm: (config, settings, arms that it is compared with)}
ARMS: dict[str, tuple[str, dict, tuple[str, ...]]] = {
    "tfidf": ("tfidf_logistic", {}, ()),
    "encoder": ("logistic_regression", {}, ()),
    "lsa": ("graph", UNSMOOTHED | {"graph.scores": ("lsa",)}, ("tfidf",)),
    "labelled_ensemble": ("graph", LABELLED | UNSMOOTHED, ("tfidf",)),
    "labelled_neighbours": ("graph", LABELLED | {"graph.rounds": 0}, ("labelled_ensemble",)),
    "labelled_graph": ("graph", LABELLED, ("labelled_ensemble",)),
    "ensemble": ("graph", UNSMOOTHED, ("tfidf", "labelled_ensemble")),
    "tfidf_graph": ("graph", {"graph.scores": ("tfidf",)}, ("tfidf",)),
    "lsa_graph": ("graph", {"graph.scores": ("lsa",)}, ("lsa",)),
    "encoder_graph": ("graph", {"graph.scores": ("encoder",)}, ("encoder",)),
    "graph": (
        "graph",
        {},
        ("tfidf", "ensemble", "labelled_ensemble", "labelled_neighbours", "labelled_graph"),
    ),
}
# Arms that train the whole encoder, on packed batches.
TRAINED = {
    "train.steps": 150,
    "train.eval_every_steps": 50,
    "train.unlabelled_batch": 24,
    "optim.freeze": "()",
    "data.packing": True,
}
FOLDS = {"eval.folds": 5}
# Teachers of the students' soft labels: arms, or a file of states that llm_features.py writes.
TEACHERS = {
    "student": ("supervised", "ensemble"),
    "llm_student": ("states:data/llm_0.5b.npz",),
    "llm_1.5b_student": ("states:data/llm_1.5b.npz",),
    "llm_1.5b_student_cv": ("states:data/llm_1.5b.npz",),
}
ARMS |= {
    "supervised": ("supervised", TRAINED, ("encoder", "tfidf")),
    # As many rows in a step as the students see
    "supervised_32": ("supervised", TRAINED | {"train.labelled_batch": 32}, ("supervised",)),
    "student": ("self_training", TRAINED, ("supervised", "supervised_32", "graph")),
    "llm_student": ("self_training", TRAINED, ("supervised", "supervised_32", "student")),
    "llm_1.5b_student": (
        "self_training",
        TRAINED,
        ("supervised", "supervised_32", "llm_student", "oracle"),
    ),
    "oracle": ("self_training", TRAINED | {"train.oracle": True}, ("supervised",)),
    # Without a dev label; the labelled rows choose step, threshold and calibration in five folds
    "supervised_cv": ("supervised", TRAINED | FOLDS, ("supervised",)),
    "llm_1.5b_student_cv": (
        "self_training",
        TRAINED | FOLDS,
        ("supervised_cv", "llm_1.5b_student"),
    ),
}
for count in (50, 800, 2000):
    labels, baseline = {"data.labelled": count}, f"supervised_32_{count}"
    ARMS[baseline] = ("supervised", ARMS["supervised_32"][1] | labels, ("supervised_32",))
    ARMS[f"llm_1.5b_student_{count}"] = (
        "self_training",
        TRAINED | labels,
        (baseline, "supervised_32"),
    )
    TEACHERS[f"llm_1.5b_student_{count}"] = TEACHERS["llm_1.5b_student"]
MEASURES = {"auprc": "AUPRC", "f1": "F1 harmful"}


def _cell(arm: str, seed: int) -> Cell:
    """Plans a cell; those of students first train their teachers, if these are not finished."""
    config, own, _ = ARMS[arm]
    plain = Cell(config, methods.SETTINGS | own | {"seed": seed})
    if arm not in TEACHERS:
        return plain
    teachers: dict[str, Cell | None] = {}
    for name in TEACHERS[arm]:
        if name in ARMS:
            teachers[f"runs/ladder/{name}-{seed}"] = _cell(name, seed)
        else:
            teachers[name] = None
    return taught(plain, f"runs/ladder/{arm}-{seed}-soft_labels", teachers)


CELLS = {
    f"{one['arm']}-{one['seed']}": _cell(**one)
    for one in product(seed=[seed for seeds in SEEDS.values() for seed in seeds], arm=ARMS)
}

write_corpora = methods.write_corpora


def table() -> str:
    """Means of the arms and paired gains, for the first and the confirming seeds."""
    titles = [f"{title}, %" for title in MEASURES.values()]
    parts = []
    for name in SEEDS:
        means, gains = rows(name)
        if means:
            parts += [
                f"{name} seeds",
                github(means, ["arm", "seeds", *titles]),
                github(gains, ["gain [95%]", *titles, "better AUPRC", "least F1 gain"]),
            ]
        if found := teachers(name):
            parts.append(github(found, ["student", "scores of", "dev AUPRC, %"]))
    return "\n\n".join(parts)


def teachers(name: str) -> list[list[str]]:
    """Returns rows of the teachers' dev AUPRC, and of their soft labels'."""
    found = []
    for arm in TEACHERS:
        made = [
            run["more"]["soft_labels"]["results"]
            for run in runs_of("ladder", _names(arm, SEEDS[name]))
        ]
        if len(made) < 2:
            continue
        named = [one["teachers"] + [{"name": "soft labels", "dev": one["dev"]}] for one in made]
        for same in zip(*named, strict=True):
            values = 100 * np.array([one["dev"]["auprc"] for one in same])
            title = re.sub(r".*[:/]|-\d+.*|\.npz", "", same[0]["name"])
            found.append([arm, title, f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"])
    return found


def rows(name: str) -> tuple[list[list[str]], list[list[str]]]:
    """Returns the rows of both tables: of arms with records of two seeds or more.

    A gain is over the seeds that both arms have.
    """
    runs = {
        arm: {run["report"]["seed"]: run for run in runs_of("ladder", _names(arm, SEEDS[name]))}
        for arm in ARMS
    }
    tests = {
        arm: {seed: results.own_test(run) for seed, run in mine.items()}
        for arm, mine in runs.items()
        if len(mine) > 1
    }
    if not tests:
        return [], []
    every = [result for mine in tests.values() for result in mine.values()]
    results.check_cohort(every)
    drawn = {id(result): comparison.draws(result, MEASURES) for result in every}
    means, gains = [], []
    for arm, mine in tests.items():
        values = (np.array([r.scores[m]["value"] for r in mine.values()]) for m in MEASURES)
        spread = [f"{100 * v.mean():.1f} ± {100 * v.std(ddof=1):.1f}" for v in values]
        means.append([arm, str(len(mine)), *spread])
        for other in (other for other in ARMS[arm][2] if other in tests):
            seeds = sorted(mine.keys() & tests[other].keys())
            if len(seeds) < 2:
                continue
            pairs = [(mine[seed], tests[other][seed]) for seed in seeds]
            found = {name: comparison.gain(pairs, name, drawn) for name in MEASURES}
            gains.append(
                [f"{arm} less {other}", *(cell(one, sign="+") for one in found.values())]
                + [f"{found['auprc']['better']} of {len(seeds)}"]
                + [f"{100 * found['f1']['least']:+.1f}"]
            )
    return means, gains


def _names(arm: str, seeds: range) -> list[str]:
    return [f"{arm}-{seed}" for seed in seeds]
