"""BeaverTails: questions with answers of Alpaca-7B, judged by people."""

from ssl_guard.data.corpora.parse import Item, first_of
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {True: SAFE, False: HARMFUL}  # of is_safe


class BeaverTails(Published):
    """Ji et al. 2023: a small and a large release, which overlap.

    response_harm is is_safe, of the pair. The same pair may be there several times, once for each
    person who judged it, and people disagree. The category of a row is the first of its fourteen
    that is true. The questions are not labelled on their own.
    """

    name = "beavertails"
    RELEASE_NOTES = {"1.0.0": "round0 of the hub."}
    FILES = {
        "response_harm": {
            "train_30k": ("round0/30k/train.jsonl.gz",),
            "test_30k": ("round0/30k/test.jsonl.gz",),
            "train_330k": ("round0/330k/train.jsonl.xz",),
            "test_330k": ("round0/330k/test.jsonl.xz",),
        }
    }
    ROWS = {
        "response_harm": {
            "train_30k": 27_186,
            "test_30k": 3_021,
            "train_330k": 300_567,
            "test_330k": 33_396,
        }
    }
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/PKU-Alignment/BeaverTails"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download PKU-Alignment/BeaverTails --repo-type dataset --local-dir {folder}"
    )
    CITATION = "ji2023beavertails"

    @classmethod
    def parse(cls, task, split, row):
        category = first_of(row["category"])
        yield Item(row["prompt"], LABELS[row["is_safe"]], row["response"], category)
