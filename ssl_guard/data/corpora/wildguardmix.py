"""WildGuardMix, the training and test set of WildGuard: prompts, most with a response."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {"harmful": HARMFUL, "unharmful": SAFE, None: None}
COLUMNS = {"prompt_harm": "prompt_harm_label", "response_harm": "response_harm_label"}

SPLITS = {"train": ("train/wildguard_train.parquet",), "test": ("test/wildguard_test.parquet",)}


class WildGuardMix(Published):
    """Han et al. 2024, mostly written by models; the test split is labelled by people.

    prompt_harm is prompt_harm_label, response_harm is response_harm_label, each harmful or
    unharmful; a row without the label is unlabelled. Rows without a response are left out of
    response_harm.
    """

    name = "wildguardmix"
    RELEASE_NOTES = {"1.0.0": "The two Parquet files of the hub."}
    FILES = {"prompt_harm": SPLITS, "response_harm": SPLITS}
    ROWS = {
        "prompt_harm": {"train": 86_759, "test": 1_725},
        "response_harm": {"train": 37_976, "test": 1_725},
    }
    READS = ("prompt", "response", "subcategory", *COLUMNS.values())
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "ODC-By-1.0"
    HOMEPAGE = "https://huggingface.co/datasets/allenai/wildguardmix"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "accept the terms on https://huggingface.co/datasets/allenai/wildguardmix, then run: hf "
        "auth login && hf download allenai/wildguardmix --repo-type dataset --local-dir {folder}"
    )
    CITATION = "han2024wildguard"

    @classmethod
    def parse(cls, task, split, row):
        label = LABELS[row[COLUMNS[task]]]
        if task == "response_harm" and row["response"] is None:
            label = "no response"
        yield Item(row["prompt"], label, row["response"], row["subcategory"])
