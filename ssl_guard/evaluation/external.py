"""What people use instead, scored on the rows that a run was evaluated on (ssl_guard evaluate).

    python -m ssl_guard external --workdir=runs/uda --corpora=exam.jsonl \
        --peers=hf:/models/toxic-bert,moderation:https://api.openai.com/v1

    hf:FOLDER        a text classifier of Hugging Face (models/sequence_classification.py)
    moderation:URL   an OpenAI-shaped endpoint (moderation.py); a row with a response sends the
                     response alone, as such an endpoint reads what a model has said

RUN/peers/<peer>/evaluations/ gets a file for every corpus and threshold policy: "given", the peer's
own verdict (half), and "dev_best_f1", chosen as the run's is, on the run's dev rows; the run's
attacks are tried on it, too. Files with columns or label values of their own are read with
the flags of ssl_guard evaluate. A key is read from the environment, and a peer that cannot be had
is told and does not stop others.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard.data.assemble import Source
from ssl_guard.data.encode import encode
from ssl_guard.data.records import Rows
from ssl_guard.data.schema import HARMFUL, Example, make_corpus
from ssl_guard.data.tokenizer import Tokenizer
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, metrics, moderation, robustness
from ssl_guard.evaluation.eval_sets import labelled_rows
from ssl_guard.evaluation.evaluate import DEV, NO_SCORES, judge, length_names
from ssl_guard.evaluation.records_io import read_evaluations, record_read, write_evaluation
from ssl_guard.models import load_sequence_classifier
from ssl_guard.models.sequence_classification import probabilities
from ssl_guard.runtime import provenance, sharding
from ssl_guard.runtime.files import sha256_file

BATCH = 32
LONGEST = 1024  # tokens, for the memory of encoders that read thousands

# Names of outputs, case and "-", "_", " " aside. LABEL_0 and LABEL_1 are what transformers calls
# outputs that nobody named: safe and harmful by custom, as in Prompt Guard 2 and HarmAug.
MEANS_HARMFUL = frozenset((
    "label1", "toxic", "toxicity", "severetoxic", "severetoxicity", "obscene", "threat", "insult",
    "identityhate", "identityattack", "sexualexplicit", "hate", "hateful", "hatespeech",
    "offensive", "unsafe", "harmful", "malicious", "injection", "promptinjection", "jailbreak",
    "nsfw", "violence", "selfharm",
))  # fmt: skip
MEANS_SAFE = frozenset((
    "label0", "safe", "benign", "neutral", "harmless", "unharmful", "nontoxic", "nottoxic",
    "nothate", "nonhate", "notoffensive", "nonoffensive", "normal", "legit", "legitimate", "ok",
    "none", "sfw", "notharmful",
))  # fmt: skip


class Peer(NamedTuple):
    """score(examples) -> (scores, verdicts): harmful score, float64 [rows], in [0, 1], not a
    number for a row that failed; and the peer's own verdicts, bool [rows], where they are not
    `score >= 0.5`, else None.

    sha256: of the weights, None where nobody can see them.
    """

    name: str
    sha256: str | None
    score: Callable[[Sequence[Example]], tuple[np.ndarray, np.ndarray | None]]


def checkpoint_peer(folder: str | Path, harmful: Sequence[str] = ()) -> Peer:
    """The text classifier in a folder. harmful: the labels that count, instead of the usual names.

    The score is the sum of the softmax over the harmful labels, or the largest of their sigmoids.
    A pair is written as the checkpoint's own tokenizer writes it, and cut at its own longest length
    as ours are: the start of the prompt goes first. Raises BadInput for what cannot be read, and
    for labels that may mean either.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}: give one with a checkpoint's files.")
    classifier = load_sequence_classifier(folder)
    chosen = np.array(harmful_outputs(classifier.labels, harmful, classifier.multi_label, folder))
    tokenizer = Tokenizer(folder, _max_length(folder, classifier.config))
    if tokenizer.vocab_size > classifier.config.vocab_size:
        raise BadInput(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens but the weights "
            f"{classifier.config.vocab_size}: they must belong to one model."
        )
    mesh = sharding.make_mesh()

    def harmful_score(params, batch):
        if not tokenizer.marks_pairs:
            batch = batch | {"token_type_ids": 0 * batch["token_type_ids"]}
        found = probabilities(classifier, params, batch)[:, chosen]
        combined = found.max(axis=1) if classifier.multi_label else found.sum(axis=1)
        return combined[:, None]

    step = jax.jit(harmful_score, out_shardings=sharding.replicated(mesh))
    how = {
        "batch_size": max(BATCH, mesh.size),
        "buckets": _buckets(tokenizer.max_length),
        "pad_id": tokenizer.pad_id,
        "mesh": mesh,
    }

    def score(examples):
        texts = ((example, 0, example.prompt, example.response) for example in examples)
        records = Rows(encode(tokenizer, texts))
        return inference.outputs(step, classifier.params, records, **how)[:, 0], None

    return Peer(folder.resolve().name, _weights_sha256(folder), score)


def harmful_outputs(
    labels: Sequence[str], harmful: Sequence[str], multi_label: bool, where: str | Path
) -> list[int]:
    """Places of the labels that mean harmful: those asked for, else by the names above.

    Raises BadInput, with the labels, for one that is asked for and not there, for names that are
    not known, and if nothing or, under a softmax, everything would be harmful.
    """
    listed = f"{where} has the labels {', '.join(labels)}"
    if unknown := [name for name in harmful if name not in labels]:
        raise BadInput(f"{listed}, but not {unknown[0]}: give --harmful_labels from these.")
    if harmful:
        chosen = [i for i, label in enumerate(labels) if label in harmful]
    elif list(labels) == ["LABEL_0"]:
        chosen = [0]
    else:
        plain = ["".join(c for c in label.casefold() if c not in "-_ ") for label in labels]
        if any(name not in MEANS_HARMFUL | MEANS_SAFE for name in plain):
            raise BadInput(f"{listed}: say with --harmful_labels which of them mean harmful.")
        chosen = [i for i, name in enumerate(plain) if name in MEANS_HARMFUL]
    if not chosen or (len(chosen) == len(labels) and not multi_label):
        raise BadInput(f"{listed}: some must mean harmful, others not; see --harmful_labels.")
    return chosen


def _max_length(folder: Path, config) -> int:
    """Tokens that the encoder has positions for, that its tokenizer allows, and at most LONGEST."""
    longest = config.max_tokens or config.max_position_embeddings
    file = folder / "tokenizer_config.json"
    if file.is_file():
        stated = json.loads(file.read_text(encoding="utf-8")).get("model_max_length")
        longest = min(longest, int(stated)) if stated else longest
    return min(longest, LONGEST)


def _buckets(longest: int) -> tuple[int, ...]:
    return (*(size for size in (64, 128, 256, 512) if size < longest), longest)


def _weights_sha256(folder: Path) -> str:
    """Of model.safetensors, or of the hashes of its shards."""
    hashes = [sha256_file(file) for file in sorted(folder.glob("model*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def moderation_peer(base_url: str, *, model: str = "", key: str = "") -> Peer:
    """An endpoint; its verdicts are `flagged`, its score the largest category's."""

    def score(examples):
        texts = [example.response or example.prompt for example in examples]
        return moderation.moderate(base_url, texts, model=model, key=key, batch_size=BATCH)

    return Peer(model or urlsplit(base_url).hostname or "endpoint", None, score)


def at_half(scores: np.ndarray, verdicts: np.ndarray | None) -> np.ndarray:
    """Scores for which `score >= 0.5` is the peer's own verdict: (score + verdict) / 2.

    Rows of one verdict keep their order.
    """
    if verdicts is None:
        return scores
    folded = (scores + verdicts) / 2
    return np.where(verdicts, folded, np.minimum(folded, np.nextafter(0.5, 0)))


class Exam(NamedTuple):
    """A run's evaluation on one corpus, and the examples of its rows, in their order."""

    evaluation: dict
    examples: list[Example]


def exams_of(
    workdir: Path,
    config: ConfigDict,
    source: Source,
    names: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> list[Exam]:
    """The run's evaluations on these corpora, named and read as for ssl_guard evaluate; one of
    each, whatever threshold the run was judged at.

    Raises BadInput for a corpus that the run was not evaluated on, or that has changed since.
    """
    evaluations, exams = read_evaluations(workdir), []
    for name in names:
        title, rows, _ = labelled_rows(name, config, source, columns=columns, labels=labels)
        of_corpus = [e for e in evaluations if e["cohort"]["corpus"] == title]
        found = {e["cohort"]["rows_sha256"]: e for e in of_corpus}
        if not found:
            raise BadInput(
                f"{workdir} was not evaluated on {name}: run python -m ssl_guard evaluate "
                f"--workdir={workdir} --corpora={name} first."
            )
        by_id = {example.id: example for example in rows}
        for sha256, evaluation in found.items():
            examples = [by_id.get(row["id"]) for row in evaluation["rows"]]
            if None in examples or _sha256(examples) != sha256:
                raise BadInput(
                    f"{name} is not what {workdir} was evaluated on: rows are gone or have "
                    "changed; evaluate the run again."
                )
            exams.append(Exam(evaluation, examples))
    return exams


def examine(
    peer: Peer,
    exams: Sequence[Exam],
    dev: Sequence[Example],
    workdir: Path,
    *,
    buckets: Sequence[int],
    resamples: int,
) -> list[Path]:
    """Scores every exam, and what the run's own attacks make of it, under both policies, and
    returns the paths of the files written. buckets: the run's, of its slices by length."""
    labels = np.array([example.label for example in dev])
    scores, _ = peer.score(dev)
    known = np.isfinite(scores)
    if len(set(labels[known])) < 2:
        raise BadInput("the peer answered for too few dev rows to choose a threshold.")
    policies = (
        ("given", 0.5, at_half),
        (DEV, metrics.best_f1_threshold(labels[known], scores[known]), lambda scores, _: scores),
    )
    name = re.sub(r"[^\w.-]", "_", peer.name)  # a model may be called ORGANISATION/NAME
    folder, written = workdir / "peers" / name, []
    for exam in exams:
        began = time.monotonic()
        scores, verdicts = peer.score(exam.examples)
        seconds = time.monotonic() - began
        known = np.isfinite(scores)
        kept = [place for place, there in enumerate(known) if there]
        harmful = [exam.examples[i] for i in kept if exam.examples[i].label == HARMFUL]
        attacked = [robustness.attack(harmful, op) for op in exam.evaluation["robustness"] or ()]
        after = [peer.score(a.views) if a.views else (NO_SCORES, None) for a in attacked]
        read_as = {"threshold_policy": f"given; {DEV}", "checkpoint_sha256": peer.sha256}
        times_read = record_read(folder, exam.evaluation["cohort"] | read_as)
        for policy, threshold, judged in policies:
            evaluation, rows = _evaluation(
                peer,
                exam,
                policy,
                threshold,
                judged(scores, verdicts),
                [(attack, judged(*found)) for attack, found in zip(attacked, after, strict=True)],
                folder,
                buckets=buckets,
                resamples=resamples,
            )
            evaluation["cost"] = {"texts_per_second": round(len(scores) / seconds, 2)}
            evaluation["times_read"] = times_read
            written.append(write_evaluation(folder, evaluation, rows))
    return written


def _evaluation(
    peer, exam, policy, threshold, scores, attacked, folder, *, buckets, resamples
) -> tuple[dict, list]:
    """One evaluation and its rows, see evaluations.py. Rows that failed are left out and named, and
    the hash of the rows that were scored says so to whoever compares."""
    known = np.isfinite(scores)
    rows = [
        {name: value for name, value in row.items() if name not in ("raw", "ema", "windows")}
        | {"raw": round(float(score), 7)}
        for row, score, there in zip(exam.evaluation["rows"], scores, known, strict=True)
        if there
    ]
    missing = [e.id for e, there in zip(exam.examples, known, strict=True) if not there]
    labels = np.array([row["label"] for row in rows])
    groups = np.array([row["group"] for row in rows])
    cohort = exam.evaluation["cohort"] | {
        "rows": len(rows),
        "harmful": int(labels.sum()),
        "split": None,
        "split_sha256": None,
        "threshold_policy": policy,
        "threshold": {"raw": threshold},
        "checkpoint_sha256": peer.sha256,
        "seed": None,
        "weights": "raw",
    }
    if missing:
        scored = [e for e, there in zip(exam.examples, known, strict=True) if there]
        cohort["rows_sha256"] = _sha256(scored)
    values = {name: [row.get(name) for row in rows] for name in exam.evaluation["slices"] or ()}
    if "length" in values:  # in the tokens of the run, so that its slices are of the same rows
        values["length"] = length_names(np.array([row["tokens"] for row in rows]), buckets)
    evaluation = exam.evaluation | {
        "cohort": cohort,
        "scorer": {"name": peer.name, "workdir": str(folder)},
        "missing": missing,
        **judge(
            labels,
            groups,
            {"raw": scores[known]},
            {"raw": threshold},
            weights="raw",
            values=values,
            attacked=attacked,
            resamples=resamples,
        ),
        "contamination": None,  # nobody knows what it was trained on
        "provenance": provenance.collect(),
    }
    del evaluation["rows"]
    return evaluation, rows


def _sha256(examples: Sequence[Example]) -> str:
    """Of rows, as the rows_sha256 of an evaluation."""
    return make_corpus("", "", examples, "").sha256


def peer_of(spec: str, *, harmful: Sequence[str], model: str, key: str) -> Peer:
    """The peer of hf:FOLDER or moderation:URL. Raises BadInput for another spec."""
    kind, _, place = spec.partition(":")
    if kind == "hf" and place:
        return checkpoint_peer(place, harmful)
    if kind == "moderation" and place:
        return moderation_peer(place, model=model, key=key)
    raise BadInput(f"{spec} is neither hf:FOLDER nor moderation:URL.")
