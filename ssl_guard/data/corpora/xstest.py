"""XSTest: safe prompts that look harmful, harmful counterparts, and responses to both."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.corpora.wildguardmix import WildGuardMix
from ssl_guard.data.schema import HARMFUL, SAFE

PROMPT_LABELS = {"safe": SAFE, "unsafe": HARMFUL}
RESPONSE_LABELS = {"unharmful": SAFE, "harmful": HARMFUL}


class XSTest(Published):
    """Röttger et al. 2024, version 2: prompts. prompt_harm is label, safe or unsafe.

    The category of a prompt is its type. Score the safe ones alone to measure over-refusal.
    """

    name = "xstest"
    RELEASE_NOTES = {"1.0.0": "xstest_prompts.csv of version 2."}
    FILES = {"prompt_harm": {"test": ("xstest_prompts.csv",)}}
    ROWS = {"prompt_harm": {"test": 450}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-4.0"
    HOMEPAGE = "https://github.com/paul-rottger/xstest"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: curl -L --create-dirs -o {folder}/xstest_prompts.csv "
        "https://raw.githubusercontent.com/paul-rottger/xstest/main/xstest_prompts.csv"
    )
    CITATION = "rottger2024xstest"

    @classmethod
    def parse(cls, task, split, row):
        label = PROMPT_LABELS[row["label"]]
        yield Item(row["prompt"], label, category=row["type"], key=row["id"])


class XSTestResponse(Published):
    """Han et al. 2024: responses of several models to the prompts of XSTest, judged by people.

    response_harm is label, harmful or unharmful; the category is prompt_harm_category.
    """

    name = "xstest_response"
    RELEASE_NOTES = {"1.0.0": "The split response_harmfulness of the hub."}
    FILES = {
        "response_harm": {"test": ("data/response_harmfulness-00000-of-00001.parquet",)},
    }
    ROWS = {"response_harm": {"test": 446}}
    READS = ("prompt", "response", "label", "prompt_harm_category")
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "ODC-By-1.0"
    HOMEPAGE = "https://huggingface.co/datasets/allenai/xstest-response"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "accept the terms on https://huggingface.co/datasets/allenai/xstest-response, then run: hf "
        "auth login && hf download allenai/xstest-response --repo-type dataset --local-dir {folder}"
    )
    CITATION = WildGuardMix.CITATION

    @classmethod
    def parse(cls, task, split, row):
        label = RESPONSE_LABELS[row["label"]]
        yield Item(row["prompt"], label, row["response"], row["prompt_harm_category"])
