"""PKU-SafeRLHF: prompts with two responses each, both judged by people."""

from ssl_guard.data.corpora.parse import Item, first_of
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {True: SAFE, False: HARMFUL}  # of is_response_0_safe and is_response_1_safe
MODELS = ("Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B")


class PKUSafeRLHF(Published):
    """Ji et al. 2024. Every row gives two pairs: the prompt with either response.

    response_harm is is_response_N_safe. The category of a pair is the first of its nineteen that is
    true. The prompts are not labelled on their own.
    """

    name = "pku_saferlhf"
    RELEASE_NOTES = {"1.0.0": "The JSON lines of the three models of the hub."}
    FILES = {
        "response_harm": {
            split: tuple(f"data/{model}/{split}.jsonl" for model in MODELS)
            for split in ("train", "test")
        }
    }
    ROWS = {"response_harm": {}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download PKU-Alignment/PKU-SafeRLHF --repo-type dataset --local-dir {folder}"
    )
    CITATION = "ji2024pku"

    @classmethod
    def parse(cls, task, split, row):
        """Yields two items for each row."""
        for n in (0, 1):
            category = first_of(row[f"response_{n}_harm_category"])
            label = LABELS[row[f"is_response_{n}_safe"]]
            yield Item(row["prompt"], label, row[f"response_{n}"], category)
