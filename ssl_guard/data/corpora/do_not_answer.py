"""Do-Not-Answer: questions that a model should not answer."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL


class DoNotAnswer(Published):
    """Wang et al. 2024. prompt_harm: all questions are harmful; the category is the risk area.

    All rows are of one class: as a test set it measures only recall. Also useful for the unlabelled
    pool.
    """

    name = "do_not_answer"
    RELEASE_NOTES = {"1.0.0": "The English questions."}
    FILES = {"prompt_harm": {"test": ("do_not_answer_en.csv",)}}
    ROWS = {"prompt_harm": {"test": 939}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-NC-SA-4.0"
    HOMEPAGE = "https://github.com/Libr-AI/do-not-answer"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: curl -L --create-dirs -o {folder}/do_not_answer_en.csv https://github.com/Libr-AI/"
        "do-not-answer/raw/main/datasets/Instruction/do_not_answer_en.csv"
    )
    CITATION = "wang2024donotanswer"

    @classmethod
    def parse(cls, task, split, row):
        yield Item(row["question"], HARMFUL, category=row["risk_area"], key=row["id"])
