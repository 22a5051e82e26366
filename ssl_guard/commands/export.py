"""Exports a finished run as a moderator: a folder that scores texts without JAX.

    python -m ssl_guard export runs/uda --to=moderator
    python -m ssl_guard export runs/uda --to=moderator --licence=apache-2.0 --rows=my.jsonl

The folder has ONNX models in float32 and int8, thresholds, the tokenizer, a model card and hashes,
and a model for AutoModelForSequenceClassification if the run has model.head = "hf". It is written
only if the ONNX model gives the verdicts of the run. Calibrate the run before, for thresholds that
keep a promise. See ssl_guard/moderator/export.py.
"""

from absl import flags

from ssl_guard.errors import BadInput
from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    to = cli.required(TO, "to")
    if len(argv) != 2:
        raise BadInput("usage: python -m ssl_guard export RUN --to=FOLDER.")
    from ssl_guard.moderator.export import export

    facts = export(argv[1], to, licence=LICENCE.value, rows=ROWS.value)
    small = facts["int8"]
    flips, auprc = sum(small["flips"].values()), 100 * small["auprc"]
    print(f"float32: largest error {facts['largest_error']:.1e} on {facts['rows']} texts")
    print(
        f"int8: {flips} verdicts differ on {small['rows']} {facts['side']} rows, AUPRC "
        f"{auprc:.1f}% (float32 {100 * small['float32_auprc']:.1f}%)"
    )
    print(f"moderator: {to}")


if __name__ == "__main__":
    TO = flags.DEFINE_string("to", None, "Folder to write; it must not exist.")
    LICENCE = flags.DEFINE_string("licence", "unknown", "Licence of the exported model.")
    ROWS = flags.DEFINE_string("rows", None, "The file that the run was calibrated on, if any.")
    cli.run(main, words="RUN")
