"""HarmBench: behaviours to ask a model for, and completions that people judged."""

from ssl_guard.data.corpora.parse import Item
from ssl_guard.data.corpora.published import Published, configs
from ssl_guard.data.schema import HARMFUL, SAFE


class HarmBench(Published):
    """Mazeika et al. 2024.

    prompt_harm: the behaviours, all of them harmful, a context first where there is one; the
    category is the semantic one. response_harm: the validation set of the benchmark's classifier,
    test case and generation, harmful if two of three people say that the generation is the
    behaviour.
    """

    name = "harmbench"
    RELEASE_NOTES = {"1.0.0": "Text behaviours and validation set, release 1.0."}
    FILES = {
        "prompt_harm": {"test": ("data/behavior_datasets/harmbench_behaviors_text_all.csv",)},
        "response_harm": {"test": ("data/classifier_val_sets/text_behaviors_val_set.json",)},
    }
    ROWS = {"prompt_harm": {"test": 400}, "response_harm": {"test": 602}}
    BUILDER_CONFIGS = configs(FILES)
    LICENCE = "MIT"
    HOMEPAGE = "https://github.com/centerforaisafety/HarmBench"
    OBTAIN = MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "run: git clone --depth 1 https://github.com/centerforaisafety/HarmBench {folder}"
    )
    CITATION = "mazeika2024harmbench"

    @classmethod
    def parse(cls, task, split, row):
        if task == "prompt_harm":
            context = row["ContextString"]
            prompt = f"{context}\n\n---\n\n{row['Behavior']}" if context else row["Behavior"]
            yield Item(prompt, HARMFUL, category=row["SemanticCategory"], key=row["BehaviorID"])
        else:
            votes = sum(int(row[f"human_{n}"]) for n in range(3))
            label = HARMFUL if votes >= 2 else SAFE
            yield Item(row["test_case"], label, row["generation"], row["experiment"])
