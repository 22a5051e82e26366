"""Formats the model card of an exported moderator, README.md in its folder."""

from pathlib import Path

from ml_collections import ConfigDict
from tabulate import tabulate

from ssl_guard.evaluation import records_io
from ssl_guard.evaluation.table import SHOWN, cell
from ssl_guard.moderator import folder as folders
from ssl_guard.runtime.files import read_json

JUDGES = {
    "prompt_harm": "whether a prompt to a language model is harmful",
    "response_harm": "whether the response of a language model to a prompt is harmful",
    "content_moderation": "whether a text is harmful",
}
WORST = 10  # slices that are listed
FEW = 10  # rows of a class below which a slice's rate is not listed


def text(
    workdir: Path, config: ConfigDict, report: dict, folder: Path, facts: dict, licence: str
) -> str:
    """Returns the card, Markdown with a header that Hugging Face reads.

    folder: with the policies; facts: of parity.measure.
    """
    parts = [
        _header(licence),
        _about(config, report, folder),
        _scores(report),
        _thresholds(folder),
        _failures(workdir),
        _models(facts, (folder / "config.json").is_file(), config),
    ]
    return "\n\n".join(parts) + "\n"


def _header(licence: str) -> str:
    lines = ["---", f"license: {licence}", "pipeline_tag: text-classification"]
    return "\n".join([*lines, "tags: [safety, moderation, onnx]", "---"])


def _about(config: ConfigDict, report: dict, folder: Path) -> str:
    settings, data = folders.read_settings(folder), report["data"]
    encoder = config.model.name
    if Path(encoder).is_dir():  # the path is of one machine
        encoder = Path(encoder).name
    rows = ", ".join(f"{count} {name}" for name, count in data["rows"].items())
    lines = [
        f"# Moderator: {encoder}, {records_io.method_name(report)}",
        "",
        f"Scores {JUDGES[settings.task]}. The licence in the header was given at export.",
        "",
        "## Trained on",
        "",
        f"- corpus: {Path(config.data.corpus).name}, rows: {rows}",
        f"- licence of the rows: {data['licence']}",
        f"- encoder {encoder}, head {config.model.head} on {config.model.pooling} pooling, "
        f"seed {report['seed']}, step {report['selected_step']} of {report['steps']}",
        f"- texts of up to {settings.max_length} tokens; longer ones are read in windows, "
        f"{settings.stride} tokens apart, and have the score of the most harmful one",
    ]
    if not config.eval.stride:
        lines.append(
            "- the run truncated long texts, so the numbers below and the promises of the "
            "thresholds are for truncated texts"
        )
    return "\n".join(lines)


def _scores(report: dict) -> str:
    found = report["test"][report["weights"]]
    rows = [[name, cell(found.get(key))] for key, name in SHOWN.items() if key in found]
    listed = tabulate(rows, ["metric", "%"], tablefmt="github", disable_numparse=True)
    return (
        f"## Scores on {report['data']['rows'].get('test', 'the')} test rows\n\n"
        "In percent, with 95% bootstrap intervals, at the threshold that was best on dev, before "
        f"calibration.\n\n{listed}"
    )


def _thresholds(folder: Path) -> str:
    rows, folded = [], ""
    for kind, name in folders.POLICIES.items():
        policy = read_json(folder / name, folders.AGAIN)
        for profile, point in policy["thresholds"].items():
            rows.append([kind, profile, f"{point['threshold']:.4f}", point["promise"]])
        if "folded" in policy:
            numbers = {key: value for key, value in policy["folded"].items() if key != "kind"}
            shown = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
            folded = f" {policy['folded']['kind'].capitalize()} scaling is part of it ({shown})."
        kept = policy["calibrator"]["kind"]
    if not folded:
        why = "isotonic calibrators are not exported" if kept == "isotonic" else "no calibrator"
        folded = f" It is not calibrated ({why})."
    listed = tabulate(
        rows, ["model", "profile", "harmful from", "promise"], tablefmt="github",
        disable_numparse=True,
    )  # fmt: skip
    return f"## Thresholds\n\nOn the probability of a text.{folded}\n\n{listed}"


def _failures(workdir: Path) -> str:
    """Lists the slices with the lowest recall and the highest FPR of the run's evaluations."""
    rows = []
    for evaluation in records_io.read_evaluations(workdir):
        for column, values in evaluation["slices"].items():
            for value, found in values.items():
                place = [evaluation["cohort"]["corpus"], f"{column}: {value}", found["rows"]]
                harmful = found.get("harmful", 0)
                if harmful >= FEW and found.get("recall") is not None:
                    rows.append((1 - found["recall"], [*place, "misses", harmful]))
                if found["rows"] - harmful >= FEW and found.get("fpr") is not None:
                    safe = found["rows"] - harmful
                    rows.append((found["fpr"], [*place, "false alarms", safe]))
    title = "## Where it fails\n\n"
    if not rows:
        return title + (
            "Not measured. `python -m ssl_guard evaluate` scores the run by category, source and "
            "length; export again after it."
        )
    worst = sorted(rows, key=lambda row: -row[0])[:WORST]
    cells = [[*place, f"{100 * rate:.1f}% of {count}"] for rate, (*place, count) in worst]
    titles = ["corpus", "slice", "rows", "error", "rate"]
    return title + tabulate(cells, titles, tablefmt="github", disable_numparse=True)


def _models(facts: dict, has_hf: bool, config: ConfigDict) -> str:
    small, side = facts["int8"], facts["side"]
    flips = ", ".join(f"{count} at {name}" for name, count in small["flips"].items())
    lines = [
        "## Files",
        "",
        f"- `onnx/model.onnx`: float32. On {facts['rows']} texts ({side} rows and ugly ones) it "
        f"has the run's verdicts; largest error of a probability {facts['largest_error']:.1e}.",
        "- `onnx/model_quantized.onnx`: int8, with `policy_int8.json`. Verdicts that differ on "
        f"{small['rows']} {side} rows: {flips}; AUPRC {100 * small['auprc']:.1f}% (float32 "
        f"{100 * small['float32_auprc']:.1f}%); largest error {small['largest_error']:.1e}.",
    ]
    if has_hf:
        lines.append(
            "- `config.json`, `model.safetensors`: AutoModelForSequenceClassification, with the "
            "same probabilities."
        )
    else:
        lines.append(
            f"- There is no model for AutoModelForSequenceClassification: PyTorch has no such head "
            f"({config.model.head} on {config.model.pooling} pooling, {config.model.num_heads} "
            'heads). Train with `model.head = "hf"`, `model.pooling = "cls"` and one head.'
        )
    return "\n".join([*lines, "- `manifest.json`: sha256 of every file; loading verifies them."])
