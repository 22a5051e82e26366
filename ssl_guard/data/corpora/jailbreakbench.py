"""JailbreakBench: harmful and harmless behaviours, and responses that people judged."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {"harmful": HARMFUL, "benign": SAFE}  # of the splits
VOTES = {"1": HARMFUL, "0": SAFE}  # of human_majority


class JailbreakBench(Published):
    """Chao et al. 2024.

    prompt_harm: the goals of the split harmful are harmful, those of benign, on the same topics,
    are safe. response_harm: the comparison of judges, prompt and target_response, by the majority
    of three people: 1 if the response is a jailbreak.
    """

    name = "jailbreakbench"
    RELEASE_NOTES = {"1.0.0": "JBB-Behaviors of the hub."}
    FILES = {
        "prompt_harm": {
            "harmful": ("data/harmful-behaviors.csv",),
            "benign": ("data/benign-behaviors.csv",),
        },
        "response_harm": {"judged": ("data/judge-comparison.csv",)},
    }
    ROWS = {"prompt_harm": {"harmful": 100, "benign": 100}, "response_harm": {"judged": 300}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "MIT"
    HOMEPAGE = "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download JailbreakBench/JBB-Behaviors --repo-type dataset --local-dir {folder}"
    )
    CITATION = "chao2024jailbreakbench"

    @classmethod
    def parse(cls, task, split, row):
        if task == "prompt_harm":
            yield Item(row["Goal"], LABELS[split], category=row["Category"], key=row["Index"])
        else:
            yield Item(row["prompt"], VOTES[row["human_majority"]], row["target_response"])
