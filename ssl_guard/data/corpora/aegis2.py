"""Aegis 2.0 (Nemotron Content Safety Dataset V2): prompts, most with a response."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {"safe": SAFE, "unsafe": HARMFUL, None: None, "": None}
COLUMNS = {"prompt_harm": "prompt_label", "response_harm": "response_label"}
UNCLEAR = ("Needs Caution", "Other")  # as the only violated category: no clear truth to learn from

SPLITS = {
    "train": ("train.json", "refusals_train.json"),
    "validation": ("validation.json", "refusals_validation.json"),
    "test": ("test.json",),
}


class Aegis2(Published):
    """Ghosh et al. 2025. Prompts are labelled by people, responses by people or a jury of models.

    prompt_harm is prompt_label, response_harm is response_label, each safe or unsafe; a row without
    the label is unlabelled. Left out: prompts that are redacted, rows without a response for
    response_harm, and, but for the test split, rows whose violated category is "Needs Caution" or
    "Other" alone. The category of a row is the first of its violated ones.
    """

    name = "aegis2"
    RELEASE_NOTES = {"1.0.0": "The five JSON files of the hub."}
    FILES = {"prompt_harm": SPLITS, "response_harm": SPLITS}
    ROWS = {
        "prompt_harm": {"train": 30_007, "validation": 1_445, "test": 1_964},
        "response_harm": {},
    }
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/nvidia/Aegis-AI-Content-Safety-Dataset-2.0"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download nvidia/Aegis-AI-Content-Safety-Dataset-2.0 --repo-type dataset "
        "--local-dir {folder}"
    )
    CITATION = "ghosh2025aegis2"

    @classmethod
    def parse(cls, task, split, row):
        categories = row["violated_categories"] or ""
        label = LABELS[row[COLUMNS[task]]]
        if row["prompt"] == "REDACTED":
            label = "redacted"
        elif task == "response_harm" and not row["response"]:
            label = "no response"
        elif split != "test" and categories in UNCLEAR:
            label = "unclear"
        category = categories.partition(",")[0].strip()
        yield Item(row["prompt"], label, row["response"], category, row["id"])
