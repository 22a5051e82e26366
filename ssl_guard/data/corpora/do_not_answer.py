"""Do-Not-Answer: questions that a model should not answer."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL


class DoNotAnswer(Published):
    """Wang et al. 2024. prompt_harm: all questions are harmful; the category is the risk area.

    A corpus of one class: as a test it measures recall alone, and it is good for the unlabelled
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
    CITATION = """\
@inproceedings{wang2024donotanswer,
  title = {Do-Not-Answer: Evaluating Safeguards in {LLMs}},
  author = {Wang, Yuxia and Li, Haonan and Han, Xudong and Nakov, Preslav and Baldwin, Timothy},
  booktitle = {Findings of EACL},
  year = {2024},
  url = {https://arxiv.org/abs/2308.13387}
}"""

    @classmethod
    def parse(cls, task, split, row):
        """One item a row."""
        yield Item(row["question"], HARMFUL, category=row["risk_area"], key=row["id"])
