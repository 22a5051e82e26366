"""Jigsaw's civil comments and Wikipedia toxicity, read from the prepared data of TFDS."""

from pathlib import Path

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

TOXIC = 0.5  # share of the people who call a comment toxic
SUBTYPES = (
    "severe_toxicity",
    "threat",
    "identity_attack",
    "sexual_explicit",
    "obscene",
    "insult",
)

CIVIL = "civil_comments/CivilComments/1.2.4/civil_comments-{}.array_record*"
WIKIPEDIA = (
    "wikipedia_toxicity_subtypes/EnglishSubtypes/0.3.1/wikipedia_toxicity_subtypes-{}.array_record*"
)
PREPARE = (
    'where tensorflow is installed, run: python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('{}', data_dir='{{folder}}').download_and_prepare(file_format='array_record')\""
)


class _Jigsaw(Published, skip_registration=True):  # type: ignore[call-arg]
    @classmethod
    def folder(cls, data_dir):
        """TFDS prepares its datasets in the data_dir itself."""
        return Path(data_dir)

    @classmethod
    def parse(cls, task, split, row):
        """Labels a comment by the shares of people who saw toxicity and its subtypes."""
        category = next((name for name in SUBTYPES if row.get(name, 0) >= TOXIC), None)
        label = HARMFUL if row["toxicity"] >= TOXIC else SAFE
        yield Item(row["text"], label, category=category, key=row["id"])


class JigsawCivilComments(_Jigsaw):
    """Borkan et al. 2019: comments of news sites. content_moderation.

    A comment is harmful if at least half of the people who judged it call it toxic. Its category is
    the first subtype that half of them saw: severe_toxicity, threat, identity_attack,
    sexual_explicit, obscene, insult.
    """

    name = "jigsaw_civil_comments"
    RELEASE_NOTES = {"1.0.0": "civil_comments/CivilComments 1.2.4 of TFDS."}
    FILES = {
        "content_moderation": {
            split: (CIVIL.format(split),) for split in ("train", "validation", "test")
        }
    }
    ROWS = {"content_moderation": {"train": 1_804_874, "validation": 97_320, "test": 97_320}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC0-1.0"
    HOMEPAGE = "https://www.tensorflow.org/datasets/catalog/civil_comments"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = PREPARE.format("civil_comments/CivilComments")
    CITATION = "borkan2019nuanced"


class JigsawWikipediaToxicity(_Jigsaw):
    """Wulczyn et al. 2017: comments of English Wikipedia's talk pages. content_moderation.

    A comment is harmful if most of the people who judged it call it toxic. Its category is the
    first subtype that most of them saw: severe_toxicity, threat, identity_attack, obscene, insult.
    """

    name = "jigsaw_wikipedia_toxicity"
    RELEASE_NOTES = {"1.0.0": "wikipedia_toxicity_subtypes/EnglishSubtypes 0.3.1 of TFDS."}
    FILES = {
        "content_moderation": {split: (WIKIPEDIA.format(split),) for split in ("train", "test")}
    }
    ROWS = {"content_moderation": {"train": 159_571, "test": 63_978}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-SA-3.0"
    HOMEPAGE = "https://www.tensorflow.org/datasets/catalog/wikipedia_toxicity_subtypes"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = PREPARE.format(
        "wikipedia_toxicity_subtypes/EnglishSubtypes"
    )
    CITATION = "wulczyn2017exmachina"
