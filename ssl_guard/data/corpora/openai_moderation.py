"""The evaluation set that OpenAI released with its moderation endpoint."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

# A flag that a row does not have is not known.
CATEGORIES = {
    "S": "sexual",
    "H": "hate",
    "V": "violence",
    "HR": "harassment",
    "SH": "self-harm",
    "S3": "sexual/minors",
    "H2": "hate/threatening",
    "V2": "violence/graphic",
}
SPLITS = {"test": ("samples-1680.jsonl.gz",)}


class OpenAIModeration(Published):
    """Markov et al. 2022. A text is harmful if any of its eight flags is 1.

    It is safe if all of them are 0; without a 1 and with a flag missing its label is unknown, and
    the row is left out. The category of a row is its first flag that is 1. The texts are read as
    prompts (prompt_harm) or for themselves (content_moderation).
    """

    name = "openai_moderation"
    RELEASE_NOTES = {"1.0.0": "samples-1680.jsonl.gz of the release."}
    FILES = {"prompt_harm": SPLITS, "content_moderation": SPLITS}
    ROWS = {"prompt_harm": {"test": 1_680}, "content_moderation": {"test": 1_680}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "MIT"
    HOMEPAGE = "https://github.com/openai/moderation-api-release"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: curl -L --create-dirs -o {folder}/samples-1680.jsonl.gz https://github.com/openai/"
        "moderation-api-release/raw/main/data/samples-1680.jsonl.gz"
    )
    CITATION = "markov2022holistic"

    @classmethod
    def parse(cls, task, split, row):
        flags = [row.get(flag) for flag in CATEGORIES]
        up = [name for flag, name in CATEGORIES.items() if row.get(flag) == 1]
        label = HARMFUL if up else SAFE if None not in flags else "flag missing"
        yield Item(row["prompt"], label, category=up[0] if up else None)
