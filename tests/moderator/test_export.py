"""An exported folder against the run that it came from, read by other code than wrote it."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import scorer
from ssl_guard.evaluation.prepare import read_split
from ssl_guard.models import load_sequence_classifier
from ssl_guard.models.sequence_classification import probabilities
from ssl_guard.moderator import Moderator, card
from ssl_guard.moderator import export as exporting
from ssl_guard.runtime.files import read_json
from tests.tiny import smoke


@pytest.fixture(scope="module")
def reference(run):
    """Dev and test examples of the run, its own scores of them, and its policy.json."""
    rows = read_split(scorer.read_config(run)).rows
    examples = [*rows["dev"], *rows["test"]]
    return examples, scorer.load_run(run).score(examples)["raw"], read_json(run / "policy.json", "")


def test_probabilities_are_the_calibrated_scores_of_the_run(exported, reference):
    folder, facts = exported
    examples, scores, policy = reference
    found = Moderator.load(folder)([(e.prompt, e.response) for e in examples], whole=False)
    temperature = policy["calibrator"]["temperature"]
    assert abs(temperature - 1) > 0.01
    margin = np.log(scores / (1 - scores)) / temperature
    expected = 1 / (1 + np.exp(-margin))
    np.testing.assert_allclose([one.probability for one in found], expected, atol=1e-5)
    assert facts["largest_error"] <= 1e-5 and not facts["flips"]


@pytest.mark.parametrize("profile", ["strict", "balanced", "permissive"])
def test_verdicts_are_those_of_the_policy_of_the_run(exported, reference, profile):
    examples, scores, policy = reference
    point = policy["thresholds"][profile]
    pairs = [(e.prompt, e.response) for e in examples]
    found = Moderator.load(exported[0])(pairs, profile=profile, whole=False)
    expected = ["harmful" if score >= point["threshold"] else "safe" for score in scores]
    assert [one.verdict for one in found] == expected
    assert {one.promise for one in found} == {point["promise"]}


def test_the_small_model_has_a_policy_fitted_on_its_own_scores(exported, run):
    folder, facts = exported
    float32, int8 = (read_json(folder / f"policy{end}.json", "") for end in ("", "_int8"))
    own = read_json(run / "policy.json", "")
    for policy in (float32, int8):
        assert policy["rows"] == own["rows"] and policy["target_fpr"] == own["target_fpr"]
    assert int8["data_sha256"] != own["data_sha256"] == float32["data_sha256"]
    assert (folder / "onnx/model_quantized.onnx").stat().st_size < (
        folder / "onnx/model.onnx"
    ).stat().st_size
    session = onnxruntime.InferenceSession(folder / "onnx/model_quantized.onnx")
    assert session.get_outputs()[0].name == "logits"
    assert 0 <= facts["int8"]["auprc"] <= 1


def test_the_hf_model_gives_the_same_probabilities(exported, reference):
    """Read by the loader that make parity compares with PyTorch."""
    folder, _ = exported
    loaded = load_sequence_classifier(folder)
    assert loaded.labels == ("safe", "harmful") and not loaded.multi_label
    moderator, pairs = Moderator.load(folder), [(e.prompt, e.response) for e in reference[0][:8]]
    texts = moderator._tokenizer.encode(*zip(*pairs, strict=True))
    batch = {name: value.astype(np.int32) for name, value in moderator._batch(texts).items()}
    found = np.asarray(probabilities(loaded, loaded.params, batch))[:, 1]
    expected = [one.probability for one in moderator(pairs, whole=False)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_card_has_the_numbers_and_the_licence(exported, run):
    text = (exported[0] / "README.md").read_text()
    report = read_json(run / "report.json", "")
    auprc = report["test"]["raw"]["auprc"]
    assert f"{100 * auprc['value']:.1f} [{100 * auprc['low']:.1f}" in text
    assert text.startswith("---\nlicense: apache-2.0\n")
    for profile in read_json(run / "policy.json", "")["thresholds"].values():
        assert profile["promise"] in text
    assert "AutoModelForSequenceClassification, with the same" in text
    assert "ssl_guard evaluate" in text and str(run) not in text


def test_the_card_lists_the_worst_slices_first(run, monkeypatch):
    slices = {
        "category": {
            "spam": {"rows": 40, "harmful": 20, "recall": 0.5, "fpr": 0.25},
            "rare": {"rows": 9, "harmful": 9, "recall": 0.0, "fpr": None},
        }
    }
    evaluation = {"cohort": {"corpus": "new"}, "slices": slices}
    monkeypatch.setattr(card.records_io, "read_evaluations", lambda workdir: [evaluation])
    *_, first, second = card._failures(run).splitlines()
    assert "category: spam" in first and "misses" in first and "50.0% of 20" in first
    assert "false alarms" in second and "25.0% of 20" in second


def test_a_model_that_flips_a_verdict_is_not_exported(run, folder, monkeypatch):
    def wrong(classifier, params, **how):
        head = params["head"]["output_0"]
        head = {"output_0": head | {"bias": head["bias"] + np.float32([0, 5e-3])}}
        return to_onnx(classifier, params | {"head": params["head"] | head}, **how)

    from ssl_guard.models.onnx import write

    to_onnx = write.to_onnx
    monkeypatch.setattr(write, "to_onnx", wrong)
    with pytest.raises(BadInput, match="cannot be exported.*largest error"):
        exporting.export(run, folder / "refused")
    assert not [path for path in folder.iterdir() if "refused" in path.name]


def test_without_a_policy_the_threshold_is_the_best_on_dev(run, folder, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "policy.json").unlink()
    facts = exporting.export(copy, tmp_path / "to")
    best = read_json(run / "report.json", "")["dev"]["raw"]["threshold"]
    for kind, int8 in (("policy", False), ("policy_int8", True)):
        points = read_json(tmp_path / "to" / f"{kind}.json", "")["thresholds"]
        assert points.keys() == {"balanced"}
        assert points["balanced"]["promise"] == "none: best F1 on dev"
        assert (points["balanced"]["threshold"] == best) != int8
    assert facts["side"] == "dev" and "license: unknown" in (tmp_path / "to/README.md").read_text()


@pytest.mark.parametrize("name", ["tfidf_logistic", "setfit", "supervised"])
def test_runs_that_are_not_one_network_are_refused(folder, name):
    config = smoke(folder, name, **({"data.prompt_corpus": "x"} if name == "supervised" else {}))
    with pytest.raises(BadInput, match="cannot be exported: (export|train)"):
        exporting._check_method(config)


def test_the_card_of_a_head_that_pytorch_lacks_says_so(exported, folder):
    config = smoke(folder, "supervised")
    text = card._models(exported[1], False, config)
    assert "no model for AutoModelForSequenceClassification" in text and "mlp on mean" in text


def test_an_existing_folder_is_kept(exported, run):
    with pytest.raises(BadInput, match="exists: delete it"):
        exporting.export(run, exported[0])


@pytest.mark.parametrize("name", ["onnx/model.onnx", "policy.json", "tokenizer.json"])
def test_a_changed_file_is_refused(exported, tmp_path, name):
    copy = shutil.copytree(exported[0], tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BadInput, match=f"{name} is not the file that was exported"):
        Moderator.load(copy)
    (copy / name).unlink()
    with pytest.raises(BadInput, match=f"lacks its file {name}"):
        Moderator.load(copy)


def test_a_folder_that_is_no_moderators(tmp_path):
    with pytest.raises(BadInput, match="holds no moderator"):
        Moderator.load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(BadInput, match="damaged"):
        Moderator.load(tmp_path)
