"""OR-Bench: harmless prompts that models tend to refuse, and toxic ones."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {"full": SAFE, "hard": SAFE, "toxic": HARMFUL}  # of the splits


class ORBench(Published):
    """Cui et al. 2024, written and judged by models.

    prompt_harm: the prompts of the splits full (80k) and hard (1k) are safe, those of toxic are
    harmful; hard is a part of full. Score hard alone to measure over-refusal.
    """

    name = "or_bench"
    RELEASE_NOTES = {"1.0.0": "The three CSV files of the hub."}
    FILES = {
        "prompt_harm": {
            "full": ("or-bench-80k.csv",),
            "hard": ("or-bench-hard-1k.csv",),
            "toxic": ("or-bench-toxic.csv",),
        }
    }
    ROWS = {"prompt_harm": {"full": 80_359, "hard": 1_319, "toxic": 655}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/bench-llm/or-bench"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download bench-llm/or-bench --repo-type dataset --local-dir {folder}"
    )
    CITATION = "cui2024orbench"

    @classmethod
    def parse(cls, task, split, row):
        yield Item(row["prompt"], LABELS[split], category=row["category"])
