"""Settings by which the rows of a file are read: its columns, and the meaning of a label.

They come from config.data or the flags of a command, and from the file's name, which goes first:

    exam.csv?prompt=text&label=toxic&harmful=2|1&safe=0&unknown=-1
    scored.parquet?label=p_toxic&harmful_from=0.5&bad_rows=skip
    wildguardmix?split=train
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ssl_guard.data import conversation
from ssl_guard.data.readers import BadRow, shown
from ssl_guard.data.schema import HARMFUL, SAFE
from ssl_guard.errors import BadInput

COLUMNS = {name: name for name in ("prompt", "response", "messages", "label", "id", "category")}
# Words whose meaning depends on the column: see `says_harm`.
TRUTH = {"true": HARMFUL, "1": HARMFUL, "false": SAFE, "0": SAFE}
LABELS = {"harmful": HARMFUL, "unsafe": HARMFUL, "unharmful": SAFE, "safe": SAFE} | TRUTH
UNKNOWN = ("", "nan", "none", "null", "<na>")  # as pandas writes a missing value
# Files of this package, by the name of their corpus. The prompts of alarming_words are harmless and
# hold a word that a keyword filter would refuse.
PACKAGED = {"alarming_words": Path(__file__).with_name("alarming_words.jsonl")}
MEANING = ("harmful", "safe", "harmful_from", "safe_from")  # of labels: given together
BAD_ROWS = ("refuse", "skip")

# Words in the names of columns in which 1 and true mean harmful, and words that turn them round.
HARM = frozenset((
    "harm", "harmful", "harmfulness", "unsafe", "toxic", "toxicity", "hate", "hateful",
    "abuse", "abusive", "offensive", "malicious", "jailbreak", "jailbreaking", "injection",
    "flagged", "violation", "violates", "insult", "threat", "obscene", "nsfw",
))  # fmt: skip
TURNED = frozenset(("not", "non", "no", "un", "anti", "without", "less", "free", "safe", "safety"))


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read the rows of a file.

    columns: names of columns, by the part of a row that they hold; those not given are COLUMNS.
    harmful, safe: label values, () and () for LABELS. unknown: label values that mean no label, in
    addition to UNKNOWN. harmful_from, safe_from: if not 0, labels are probabilities, and a row is
    harmful, or safe, from this one on. conversation: a mode of conversation.py. bad_rows: refuse a
    file with a row that cannot be used, or skip such rows and count them.

    Case is ignored in label values; 1.0 and true are "1" and "true". Raises BadInput for settings
    that contradict each other.
    """

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    harmful: tuple[str, ...] = ()
    safe: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    harmful_from: float = 0.0
    safe_from: float = 0.0
    conversation: str = "last"
    bad_rows: str = "refuse"

    def __post_init__(self):
        if unknown := sorted(set(self.columns) - set(COLUMNS)):
            raise BadInput(
                f"there is no column setting {', '.join(unknown)}: name columns for "
                f"{', '.join(COLUMNS)}."
            )
        columns = COLUMNS | {name: column for name, column in self.columns.items() if column}
        object.__setattr__(self, "columns", columns)
        for name in ("harmful", "safe", "unknown"):
            words = tuple(dict.fromkeys(map(word, getattr(self, name))))
            object.__setattr__(self, name, words)
        groups = (self.harmful, self.safe, self.unknown)
        if twice := [w for w in sum(groups, ()) if sum(w in group for group in groups) > 1]:
            raise BadInput(f"the label value {shown(twice[0])} is given two meanings: choose one.")
        cuts = [cut for cut in (self.harmful_from, self.safe_from) if cut]
        if len(cuts) > 1 or (cuts and (self.harmful or self.safe)):
            raise BadInput(
                "labels are either words (harmful, safe) or probabilities with one cut "
                "(harmful_from or safe_from): give one kind."
            )
        if not all(0 < cut <= 1 for cut in cuts):
            raise BadInput(f"harmful_from or safe_from is {cuts[0]}: give a probability.")
        for name, known in {"conversation": conversation.MODES, "bad_rows": BAD_ROWS}.items():
            if getattr(self, name) not in known:
                raise BadInput(f"{name} = {getattr(self, name)!r}: use {' or '.join(known)}.")

    @classmethod
    def of(cls, data: Mapping) -> "Reading":
        """Returns the settings of config.data."""
        return cls(
            columns=dict(data["columns"]),
            harmful=tuple(data["harmful_values"]),
            safe=tuple(data["safe_values"]),
            unknown=tuple(data["unknown_values"]),
            harmful_from=data["harmful_from"],
            safe_from=data["safe_from"],
            conversation=data["conversation"],
            bad_rows=data["bad_rows"],
        )

    def but(self, columns: Mapping[str, str] | None = None, **settings) -> "Reading":
        """Returns a copy with other settings; a meaning of labels replaces the whole meaning."""
        settings = {name: value for name, value in settings.items() if value}
        if set(MEANING) & set(settings):
            settings = {"harmful": (), "safe": (), "harmful_from": 0.0, "safe_from": 0.0} | settings
        return dataclasses.replace(self, columns={**self.columns, **(columns or {})}, **settings)

    @property
    def label_map(self) -> dict[str, int]:
        """The meaning of label values, as an evaluation records it."""
        if self.harmful_from:
            return {f"from {self.harmful_from:g}": HARMFUL, f"below {self.harmful_from:g}": SAFE}
        if self.safe_from:
            return {f"from {self.safe_from:g}": SAFE, f"below {self.safe_from:g}": HARMFUL}
        given = dict.fromkeys(self.harmful, HARMFUL) | dict.fromkeys(self.safe, SAFE)
        return given or LABELS

    def label(self, value: object) -> int | None:
        """Returns the meaning of a label value: HARMFUL, SAFE or None.

        Raises BadRow for another value, and for 1 or true in a column whose name leaves their
        meaning open.
        """
        name, key = self.columns["label"], word(value)
        words = self.label_map
        if key in self.unknown or (key in UNKNOWN and key not in words):
            return None
        if self.harmful_from or self.safe_from:
            return self._cut(name, key)
        if key not in words:
            raise BadRow(
                "unknown label",
                f"{name!r} is {shown(key)}, but a label is one of {', '.join(words)}, or empty for "
                "unknown",
                "state the words of this file as harmful=, safe= and unknown=, or probabilities as "
                "harmful_from=0.5",
            )
        if words is LABELS and key in TRUTH and not says_harm(name):
            raise BadRow(
                "unknown label",
                f"{name!r} is {key}, which may mean harmful or safe",
                f"state it as harmful={key} or safe={key}, with the other value as the other",
            )
        return words[key]

    def _cut(self, name: str, key: str) -> int:
        try:
            probability = float(key)
        except ValueError:
            probability = -1.0
        if not 0 <= probability <= 1:
            raise BadRow(
                "unknown label", f"{name!r} is {shown(key)}, which is no probability", "mend it"
            )
        if self.harmful_from:
            return HARMFUL if probability >= self.harmful_from else SAFE
        return SAFE if probability >= self.safe_from else HARMFUL


def word(value: object) -> str:
    """Returns a label value as a word; whole numbers have no decimals, None is empty."""
    text = "" if value is None else str(value).strip().lower()
    return text.partition(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def says_harm(column: str) -> bool:
    """Returns True if a column has a name in which 1 and true mean harmful."""
    parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", column)}
    return column.lower() in ("label", "labels") or bool(parts & HARM) and not parts & TURNED


def split_name(name: str | Path) -> tuple[Path, dict[str, str]]:
    """Splits the name of a file into its path and its settings.

    The path is the longest beginning up to a "?" that exists, so a file's own name may hold one; or
    that of a corpus of PACKAGED. Raises BadInput for an unknown, empty or repeated setting.
    """
    text = str(PACKAGED.get(str(name), name))
    end = _path_end(text)
    path, settings = Path(text[:end]), dict[str, str]()
    known = (*COLUMNS, *MEANING, "unknown", "conversation", "bad_rows", "split")
    for key, _, value in (pair.partition("=") for pair in text[end + 1 :].split("&") if pair):
        if key not in known or not value or key in settings:
            fault = "is given twice" if key in settings else "is not a setting of a file"
            raise BadInput(
                f"{name}: {key!r} {fault}; the settings are "
                f"{', '.join(known)}, each with a value, such as {path}?prompt=text&label=toxic."
            )
        settings[key] = value
    return path, settings


def _path_end(text: str) -> int:
    ends = [len(text), *(i for i in reversed(range(len(text))) if text[i] == "?")]
    return next((end for end in ends if os.path.exists(text[:end])), ends[-1])


def with_settings(reading: Reading, name: str | Path) -> Reading:
    """Returns the settings with those of the file's name, which go first.

    A corpus of PACKAGED is read by the default ones.
    """
    if str(name) in PACKAGED:
        return Reading()
    _, given = split_name(name)
    given.pop("split", None)
    columns = {key: given.pop(key) for key in COLUMNS if key in given}
    settings: dict = {**given}
    for key in ("harmful", "safe", "unknown"):
        if key in given:
            settings[key] = tuple(filter(None, given[key].split("|")))
    for key in ("harmful_from", "safe_from"):
        if key in given:
            try:
                settings[key] = float(given[key])
            except ValueError as error:
                raise BadInput(f"{name}: {key} must be a number.") from error
    return reading.but(columns, **settings)


def names_in(listed: str) -> list[str]:
    """Splits a comma-separated list of corpora; the name of an existing file may hold a comma."""
    parts, names = listed.split(","), []
    while parts:
        for taken in range(len(parts), 0, -1):
            name = ",".join(parts[:taken]).strip()
            end = _path_end(name)
            if os.path.exists(name[:end]) and "," not in name[end:]:
                break
        names.append(name)  # the last one tried is the first part alone
        del parts[:taken]
    return [name for name in names if name]
