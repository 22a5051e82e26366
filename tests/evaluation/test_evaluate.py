"""A finished run evaluated on corpora: one code path with training, and numbers that cannot lie."""

import json

import numpy as np
import pytest

from configs import supervised
from ssl_guard.data.contamination import overlap
from ssl_guard.data.corpora import user_file
from ssl_guard.data.corpora.reading import LABELS, Reading
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import (
    eval_sets,
    evaluate,
    operating_point,
    records_io,
    robustness,
    scorer,
    table,
)
from ssl_guard.evaluation.prepare import read_split
from ssl_guard.runtime.files import read_jsonl, write_json
from ssl_guard.train import run as train_run
from tests.tiny import write_encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, its report): a run of seconds that keeps an average of its weights."""
    folder = tmp_path_factory.mktemp("run")
    config = supervised.get_config("smoke")
    config.data.dir, config.compilation_cache = str(folder / "data"), ""
    config.model.name = str(write_encoder(folder / "encoder"))
    config.optim.ema_decay = 0.5
    return folder / "run", train_run.train_and_evaluate(config, folder / "run")


@pytest.fixture(scope="module")
def source(run):
    return read_split(scorer.read_config(run[0]))


@pytest.fixture(scope="module")
def loaded(run):
    return scorer.load_run(run[0])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def exam_rows(count=24):
    """Rows that no corpus has, every other one harmful; long ones, short ones."""
    return [
        {
            "id": f"row{i}",
            "prompt": f"prompt{i} " + " ".join(f"word{i}x{j}" for j in range(4 + 3 * i)),
            "response": f"answer{i} of{i} row{i}",
            "label": i % 2,
            "category": "ab"[i % 3 == 0],
            "adversarial": i % 4 == 0,
            "origin": f"o{i % 2}",
        }
        for i in range(count)
    ]


def test_dev_and_test_have_the_numbers_of_training_to_the_last_digit(run):
    workdir, report = run
    evaluation, test = evaluate.evaluate_run(workdir, ["dev", "test"])
    for kind in ("raw", "ema"):
        dev = dict(report["dev"][kind])
        assert evaluation["cohort"]["threshold"][kind] == dev.pop("threshold")
        assert {n: s["value"] for n, s in evaluation["scores"][kind].items()} == dev
        assert test["scores"][kind] == report["test"][kind]
    # Training has read dev after steps 2 and 4, and test at the end.
    assert (evaluation["times_read"], test["times_read"]) == (3, 2)
    assert any("test: scored 2 times" in note for note in table.notes([test]))
    mine = read_jsonl(workdir / "predictions.jsonl")
    lines = read_jsonl(workdir / "evaluations" / "human_scored_responses.test.dev_best_f1.jsonl")
    assert [{name: line[name] for name in mine[0]} for line in lines] == mine
    assert test["cohort"]["label_map"] is None  # the corpus's own labels
    assert test["contamination"] == {"exact": 0, "near_duplicates": 0, "removed": True}
    assert test["cohort"]["split_sha256"] == report["provenance"]["split_sha256"]


def test_a_corpus_of_ones_own(run, tmp_path):
    """Every part of an evaluation on a file, against a count by hand."""
    workdir, report = run
    rows = exam_rows()
    path = write(tmp_path / "exam.jsonl", [*rows, rows[0] | {"id": "unlabelled", "label": None}])
    safe = write(tmp_path / "alarming.jsonl", [row | {"label": "safe"} for row in rows])
    found, refused = evaluate.evaluate_run(
        workdir, [path], over_refusal=[safe], attacks=["identity"], slices=["adversarial", "origin"]
    )
    cohort, threshold = found["cohort"], report["dev"]["ema"]["threshold"]
    assert (cohort["rows"], cohort["harmful"], cohort["weights"]) == (24, 12, "ema")
    assert cohort["threshold_policy"] == "dev_best_f1" and cohort["corpus"] == "exam"
    assert found["times_read"] == refused["times_read"] == 1
    assert cohort["label_map"] == LABELS

    lines = read_jsonl(workdir / "evaluations" / "exam.dev_best_f1.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert {line["source"] for line in lines} == {"exam.jsonl"}
    scores = np.array([line["ema"] for line in lines])
    labels = np.array([line["label"] for line in lines])
    hits, alarms = (
        (scores >= threshold)[labels == 1].sum(),
        (scores >= threshold)[labels == 0].sum(),
    )
    assert found["scores"]["ema"]["recall"]["value"] == hits / 12
    assert found["scores"]["ema"]["fpr"]["value"] == alarms / 12

    slices = found["slices"]
    assert {name: part["rows"] for name, part in slices["category"].items()} == {"a": 16, "b": 8}
    # Rows 0, 4, 8 ... are adversarial, and all of them are safe: a recall would be made up.
    adversarial = slices["adversarial"]["True"]
    assert (adversarial["rows"], adversarial["harmful"]) == (6, 0)
    assert adversarial["fpr"] == (scores[::4] >= threshold).mean() and "recall" not in adversarial
    assert slices["origin"]["o1"]["recall"] == hits / 12
    short = [line["tokens"] <= 64 for line in lines]
    assert slices["length"]["up to 64 tokens"]["rows"] == sum(short) < 24
    assert slices["length"]["over 64 tokens"]["rows"] == 24 - sum(short)

    same = {"arguments": {}, "rows": 12, "recall": hits / 12, "drop": 0, "low": 0, "high": 0}
    assert found["robustness"] == {"identity": same}
    assert sum(part["rows"] for part in found["curves"]["reliability"]) == 24
    assert found["cost"]["texts_per_second"] > 0 and 0 < found["cost"]["padding_share"] < 1

    assert refused["kind"] == "over_refusal" and refused["cohort"]["harmful"] == 0
    assert list(refused["scores"]["ema"]) == ["fpr", "fpr_at_half"]
    assert refused["scores"]["ema"]["fpr"]["value"] == (scores >= threshold).mean()
    assert "precision_recall" not in refused["curves"]
    row = table.table([found, refused]).splitlines()[-1]
    assert row.count(" - ") == 6 and "alarming (over-refusal)" in row and " 0.0 [" not in row

    written = records_io.read_evaluations(workdir)
    assert {e["cohort"]["corpus"] for e in written} >= {"exam", "alarming"}
    for path in (workdir / "evaluations").glob("*.json*"):
        assert "word1x1" not in path.read_text() and "answer" not in path.read_text()


def test_what_the_run_has_seen_is_taken_out_and_counted(run, source, tmp_path):
    config = scorer.read_config(run[0])
    learned, chosen = source.rows["labelled"][0], source.rows["dev"][0]
    eval_set = source.rows["test"][0]
    rows = [
        *exam_rows(4),
        {"id": "equal", "prompt": f"  {learned.prompt.upper()}", "response": "r", "label": 1},
        {"id": "near", "prompt": f"{chosen.prompt} , please !", "response": "r", "label": 0},
        {"id": "fine", "prompt": eval_set.prompt, "response": "r", "label": 0},
    ]
    path = write(tmp_path / "exam.jsonl", rows)
    opened = eval_sets.open_eval_set(path, config, source)
    assert opened.contamination == {"exact": 1, "near_duplicates": 1, "removed": True}
    assert [e.id for e in opened.examples] == ["row0", "row1", "row2", "row3", "fine"]
    kept = eval_sets.open_eval_set(path, config, source, keep_seen=True)
    assert kept.contamination == opened.contamination | {"removed": False}
    assert len(kept.examples) == 7
    # The corpus is the same one, however many of its rows are scored: a second read is a read.
    assert kept.corpus.sha256 == opened.corpus.sha256
    with pytest.raises(BadInput, match="all 2 rows are near-duplicates"):
        eval_sets.open_eval_set(write(tmp_path / "old.jsonl", rows[4:6]), config, source)


def test_overlap_by_hand():
    seen = ["How do I bake a very good loaf of bread at home"]
    found = overlap(
        [
            "how do i  BAKE a very good loaf of bread at home",
            "another",
            "another",
            seen[0] + " now",
        ],
        seen,
    )
    assert found.exact.tolist() == [True, False, False, False]
    assert found.near.tolist() == [True, False, False, True]
    assert found.groups[1] == found.groups[2] != found.groups[0] == found.groups[3]


@pytest.mark.parametrize(
    ("rows", "name", "message"),
    [
        ([], "empty.jsonl", "has no rows"),
        ([{"prompt": "p", "response": "r"}], "unlabelled.jsonl", "no row with a label"),
        ([{"prompt": "p", "label": 1}], "prompts.jsonl", "no column 'response'"),
        ([{"prompt": "p", "response": "r", "label": "x"}], "words.jsonl", "a label is one of"),
        ([{"prompt": f"p{i}", "response": "r", "label": 1, "note": i} for i in range(60)],
         "notes.jsonl", "'note' has 60 different values"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_scored(run, source, tmp_path, rows, name, message):
    config = scorer.read_config(run[0])
    with pytest.raises(BadInput, match=message):
        eval_sets.open_eval_set(write(tmp_path / name, rows), config, source, slices=["note"])


def test_a_named_corpus_of_another_task(run, source):
    config = scorer.read_config(run[0]).copy_and_resolve_references()
    config.data.task = "prompt_harm"
    with pytest.raises(BadInput, match="labelled for response_harm"):
        eval_sets.open_eval_set("human_scored_responses", config, source)


def test_a_corpus_that_is_not_there_names_its_flag_and_the_nearest(run, source):
    with pytest.raises(BadInput, match=r"^--corpora: 'tset' is .*: did you mean test\?"):
        evaluate.evaluate_run(run[0], ["tset"])
    with pytest.raises(BadInput, match=r"^--over_refusal: 'xstset' .*: did you mean xstest\?"):
        evaluate.evaluate_run(run[0], [], over_refusal=["xstset"])
    with pytest.raises(BadInput, match="^--corpora: xstest is labelled for prompt_harm"):
        evaluate.evaluate_run(run[0], ["xstest"])


def test_over_refusal_reads_the_safe_rows_of_a_mixed_corpus(run, source, tmp_path):
    config = scorer.read_config(run[0])
    path = write(tmp_path / "mixed.jsonl", exam_rows(10))
    opened = eval_sets.open_eval_set(path, config, source, over_refusal=True)
    assert [e.id for e in opened.examples] == ["row0", "row2", "row4", "row6", "row8"]
    assert opened.corpus.sha256 != eval_sets.open_eval_set(path, config, source).corpus.sha256


def test_columns_and_label_values_of_a_file(run, source, tmp_path):
    config = scorer.read_config(run[0])
    rows = [{"prompt": f"p{i}", "response": "r", "verdict": ["no", "yes"][i % 2]} for i in (0, 1)]
    opened = eval_sets.open_eval_set(
        write(tmp_path / "exam.jsonl", rows),
        config,
        source,
        read_as={"columns": {"label": "verdict"}, "harmful": ("yes",), "safe": ("no",)},
    )
    assert [e.label for e in opened.examples] == [0, 1]
    assert opened.label_map == {"yes": 1, "no": 0}


def test_side_columns_go_by_id_or_by_place(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,prompt,tag\n0,p,x\n7,p,\n8,p,y\n")
    found = user_file.side_columns(path, ["tag", "none"], Reading())
    assert found == {"tag": {"0": "x", "8": "y"}}
    found = user_file.side_columns(path, ["tag"], Reading(columns={"id": "key"}))
    assert found == {"tag": {"line 2": "x", "line 4": "y"}}


def test_a_policy_sets_the_threshold_of_its_weights(run, tmp_path):
    _, report = run
    policy = policy_of(report)
    path = tmp_path / "policy.json"
    write_json(path, policy)
    found = operating_point.run_thresholds(
        report, path, ("strict", "balanced", operating_point.DEV), None
    )
    dev = {kind: scores["threshold"] for kind, scores in report["dev"].items()}
    assert found == {
        "dev_best_f1": dev,
        "policy:strict, recall >= 0.9": {"ema": 0.125},
        "policy:balanced": {"ema": 0.5},  # which promises nothing
    }
    assert operating_point.run_thresholds(report, None, ("strict",), None) == {"dev_best_f1": dev}
    given = operating_point.run_thresholds(report, None, ("strict",), 0.25)
    assert given == {"given": {"raw": 0.25, "ema": 0.25}}
    with pytest.raises(BadInput, match="no threshold for the profile 'permissive'"):
        operating_point.run_thresholds(report, path, ("permissive",), None)
    with pytest.raises(BadInput, match=r"--profile: .* did you mean strict\?"):
        operating_point.run_thresholds(report, path, ("strikt",), None)
    with pytest.raises(BadInput, match="--policy: README.md is no policy.json: make one with"):
        operating_point.run_thresholds(report, "README.md", ("strict",), None)
    with pytest.raises(BadInput, match="--policy: .*gone.json cannot be read: No such file"):
        operating_point.run_thresholds(report, tmp_path / "gone.json", ("strict",), None)
    with pytest.raises(BadInput, match="give one of them"):
        operating_point.run_thresholds(report, path, ("strict",), 0.5)
    write_json(path, policy | {"run": policy["run"] | {"selected_step": -1}})
    with pytest.raises(BadInput, match="another run"):
        operating_point.run_thresholds(report, path, ("strict",), None)


def policy_of(report):
    return {
        "run": {
            "algorithm": "supervised",
            "selected_step": report["selected_step"],
            "split_sha256": report["provenance"]["split_sha256"],
            "weights": "ema",
        },
        "thresholds": {
            "strict": {"threshold": 0.125, "promise": "recall >= 0.9", "errors_allowed": 0},
            "balanced": {"threshold": 0.5, "promise": "none", "errors_allowed": None},
        },
    }


def test_every_threshold_has_its_file_and_a_corpus_is_scored_once(run, tmp_path):
    workdir, report = run
    path = write(tmp_path / "policies.jsonl", exam_rows())
    write_json(tmp_path / "policy.json", policy_of(report))
    profiles = ("strict", "dev_best_f1")
    made = evaluate.evaluate_run(
        workdir, [path], policy=tmp_path / "policy.json", profiles=profiles, attacks=["leetspeak"]
    )
    assert [e["times_read"] for e in made] == [1, 1]
    folder = workdir / "evaluations"
    names = ["policies.dev_best_f1", "policies.policy-strict"]
    assert [p.stem for p in sorted(folder.glob("policies.*.json"))] == names
    scores = np.array([line["ema"] for line in read_jsonl(folder / f"{names[1]}.jsonl")])
    views = robustness.attack([as_example(row) for row in exam_rows() if row["label"]], "leetspeak")
    after = scorer.load_run(workdir).score(views.views)["ema"]
    for name, threshold in zip(names, (report["dev"]["ema"]["threshold"], 0.125), strict=True):
        evaluation = json.loads((folder / f"{name}.json").read_text())
        caught = (scores >= threshold)[1::2]
        assert evaluation["scores"]["ema"]["recall"]["value"] == caught.mean()
        drop = evaluation["robustness"]["leetspeak"]
        still = (after >= threshold).mean()
        assert (drop["rows"], drop["recall"]) == (len(after), still)
        assert drop["drop"] == pytest.approx(caught[views.places].mean() - still)
    assert set(made[1]["scores"]) == {"ema"} and set(made[0]["scores"]) == {"raw", "ema"}


def test_other_scorers_are_judged_on_the_same_rows(run, source, tmp_path):
    """Rows that the run has seen are left out for all, and each keeps its own cohort."""
    workdir, report = run
    seen = {"id": "seen", "prompt": source.rows["dev"][0].prompt, "response": "r", "label": 1}
    path = write(tmp_path / "others.jsonl", [*exam_rows(), seen])

    def score(examples):
        return np.array([len(example.prompt) % 97 / 97 for example in examples]), None

    of_run, given, chosen = evaluate.evaluate_run(
        workdir, [path], attacks=["spacing"], others=[lambda: scorer.Scorer("made up", None, score)]
    )
    assert given["cohort"]["threshold_policy"] == "given"
    for found in (given, chosen):
        for key in ("corpus", "corpus_sha256", "rows_sha256", "rows", "harmful", "label_map"):
            assert found["cohort"][key] == of_run["cohort"][key], key
        assert found["cohort"]["rows"] == 24 and found["cohort"]["split"] is None
        assert found["slices"].keys() == of_run["slices"].keys()
        assert found["robustness"]["spacing"]["rows"] == of_run["robustness"]["spacing"]["rows"]
    others = records_io.read_evaluations(workdir / "peers" / "made_up")
    assert [e["scorer"]["name"] for e in others] == ["made up"] * 2
    mine = read_jsonl(workdir / "evaluations" / "others.dev_best_f1.jsonl")
    shared = ("id", "group", "label", "tokens", "source", "adversarial")
    for line, other in zip(mine, others[0]["rows"], strict=True):
        assert [line[key] for key in shared] == [other[key] for key in shared]
    assert "| made up" in table.table([of_run, given, chosen])


def as_example(row):
    return Example(row["id"], row["prompt"], row["response"], row["label"], None, "", "")


def examples(count):
    return [Example(str(i), f"text {i}", None, 1, None, "", "") for i in range(count)]


def test_the_drop_of_recall_by_hand(monkeypatch):
    """Eight of ten are caught; the attack frees four of them, and has nothing for the last two."""

    def build(name, texts, arguments):
        assert (name, arguments) == ("leetspeak", {"p": 0.5}) and len(list(texts)) == 10
        return lambda texts, rngs: [None if t in ("text 8", "text 9") else t + "!" for t in texts]

    monkeypatch.setattr(robustness.ops, "build", build)
    attack = robustness.attack(examples(10), "leetspeak")
    assert attack.places.tolist() == list(range(8))
    before = np.where(np.arange(10) < 8, 0.4, 0.3)
    after = np.array([int(view.prompt[5]) / 10 for view in attack.views])
    how = {"threshold": 0.4, "resamples": 200}
    found = robustness.recall_drop(attack, before, after, np.arange(10), **how)
    assert (found["rows"], found["recall"], found["drop"]) == (8, 0.5, 0.5)
    assert 0.05 < found["low"] < 0.4 and 0.6 < found["high"] < 0.95
    # A view without a score, of a row that is caught as it is: the row is in neither share.
    after[0] = np.nan
    found = robustness.recall_drop(attack, before, after, np.arange(10), **how)
    assert (found["rows"], found["recall"], found["drop"]) == (7, 4 / 7, 3 / 7)


def test_rewrites_depend_on_the_row_alone():
    views = robustness.rewritten(examples(6), "tfidf")
    assert robustness.rewritten(examples(6)[::-1], "tfidf")[::-1] == views
    with pytest.raises(BadInput, match="no augmentation 'none'"):
        robustness.rewritten(examples(1), "none")


def test_the_scorer_of_a_run_scores_texts(run, loaded):
    """Checks scores of several corpora at once; the hash is of the weights."""
    _, report = run
    assert scorer.tree_sha256(dict(loaded.weights)) == loaded.checkpoint_sha256
    changed = loaded.weights | {"raw": loaded.weights["ema"]}
    assert scorer.tree_sha256(changed) != loaded.checkpoint_sha256
    pairs = [Example(str(i), "p " * (1 + 9 * i), "r", None, None, "", "") for i in range(5)]
    together = loaded.score(pairs)
    assert together.keys() == {"raw", "ema"} and report["weights"] == "ema"
    for i in (0, 4):
        alone = loaded.score([pairs[i]])
        for kind in together:
            np.testing.assert_allclose(together[kind][i], alone[kind][0], atol=1e-6)
    assert not np.allclose(together["raw"], together["ema"], atol=1e-6)


def test_a_run_that_cannot_be_scored(run, tmp_path):
    workdir, _ = run
    with pytest.raises(BadInput, match="holds no run: train one"):
        scorer.load_run(tmp_path)
    for name in ("config.json", "report.json"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    with pytest.raises(BadInput, match="has no checkpoints"):
        scorer.load_run(tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot be read"):
        scorer.load_run(tmp_path)


def test_another_split_is_refused(run, tmp_path):
    workdir, report = run
    for name in ("config.json", "report.json"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    other = report | {"provenance": report["provenance"] | {"split_sha256": "other"}}
    write_json(tmp_path / "report.json", other)
    with pytest.raises(BadInput, match="is not the one of"):
        evaluate.evaluate_run(tmp_path, ["test"])


def evaluation(**cohort):
    base = {"corpus": "exam", "corpus_sha256": "a" * 64, "rows": 1}
    base |= {"threshold_policy": "dev_best_f1", "threshold": {"raw": 0.25}, "weights": "raw"}
    return dict.fromkeys(records_io.FIELDS) | {"cohort": base | cohort}


def test_files_of_evaluations(tmp_path):
    first = records_io.write_evaluation(tmp_path, evaluation(), [{"id": "x"}])
    again = records_io.write_evaluation(tmp_path, evaluation(), [{"id": "y"}])
    other = records_io.write_evaluation(tmp_path, evaluation(corpus_sha256="b" * 64), [])
    assert first == again and first.name == "exam.dev_best_f1.json"
    assert other.name == "exam.dev_best_f1-bbbbbbbb.json"
    for policy, name in {
        "policy:strict, recall >= 0.9 with 0.95 confidence": "exam.policy-strict.json",
        "given": "exam.given-0.25.json",
    }.items():
        made = evaluation(threshold_policy=policy)
        assert records_io.write_evaluation(tmp_path, made, []).name == name
    found = records_io.read_evaluations(tmp_path)
    assert [e["rows"] for e in found] == [[], [{"id": "y"}], [], []]
    with pytest.raises(ValueError, match="needs scores"):
        records_io.write_evaluation(tmp_path, {k: v for k, v in evaluation().items()
                                                if k != "scores"}, [])  # fmt: skip
    first.with_suffix(".jsonl").unlink()
    with pytest.raises(BadInput, match="not a whole evaluation"):
        records_io.read_evaluations(tmp_path)


def test_reads_are_counted_by_the_rows(tmp_path):
    def read_one(**cohort):
        keys = {"threshold_policy": "given", "checkpoint_sha256": "c"}
        return records_io.record_read(tmp_path, evaluation(**keys, **cohort)["cohort"])

    assert [read_one(), read_one(corpus="renamed"), read_one(corpus_sha256="b")] == [1, 2, 1]
