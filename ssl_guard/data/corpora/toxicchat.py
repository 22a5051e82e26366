"""ToxicChat: what people asked the Vicuna demo."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE

LABELS = {"1": HARMFUL, "0": SAFE}


class ToxicChat(Published):
    """Lin et al. 2023, release 0124, whose labels differ from those of release 1123.

    prompt_harm is toxicity, of the user's input. Rows without annotation by a person
    (human_annotation False) are in it as published: safe, for a moderation model was sure. The
    category of a row is "jailbreaking" or none.
    """

    name = "toxicchat"
    RELEASE_NOTES = {"1.0.0": "Release 0124 of the hub."}
    FILES = {
        "prompt_harm": {
            "train": ("data/0124/toxic-chat_annotation_train.csv",),
            "test": ("data/0124/toxic-chat_annotation_test.csv",),
        }
    }
    ROWS = {"prompt_harm": {"train": 5_082, "test": 5_083}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/lmsys/toxic-chat"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: hf download lmsys/toxic-chat --repo-type dataset --include 'data/0124/*' "
        "--local-dir {folder}"
    )
    CITATION = "lin2023toxicchat"

    @classmethod
    def parse(cls, task, split, row):
        category = "jailbreaking" if row["jailbreaking"] == "1" else None
        label = LABELS[row["toxicity"]]
        yield Item(row["user_input"], label, category=category, key=row["conv_id"])
