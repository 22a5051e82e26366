"""Harmless rows in the file formats of the published corpora, ugly ones among them.

`write(corpus, folder)` writes all files of a corpus as its publisher lays them out; EXPECTED says
what a builder has to make of them: (end of the id, prompt, response, label, category).
"""

import csv
import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet

HARM, SAFE = 1, 0
LINES = 'Boil\n"water", ✓\u2028please'  # line breaks, quotes, commas, beyond ASCII


def _csv(path, *lines):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def _parquet(path, columns, *lines):
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _jsonl(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)


def _json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def _wildguardmix(path):
    columns = ["prompt", "adversarial", "response", "prompt_harm_label", "response_refusal_label"]
    columns += ["response_harm_label", "subcategory"]
    if path.stem == "wildguard_train":
        _parquet(
            path,
            columns,
            (LINES, False, "Use a pot", "unharmful", "compliance", "harmful", "benign"),
            ("Bake", True, None, "harmful", None, None, "others"),
            ("Fry", False, "No", None, "refusal", None, "benign"),
            (" ", False, "Yes", "harmful", "refusal", "harmful", "benign"),
            ("Stew", False, "", "harmful", "refusal", "unharmful", "benign"),
        )
    else:
        _parquet(path, columns, ("Roast", False, "Yes", "harmful", None, "unharmful", "others"))


def _aegis2(path):
    columns = ["id", "reconstruction_id_if_redacted", "prompt", "response", "prompt_label"]
    columns += ["response_label", "violated_categories", "prompt_label_source"]
    columns += ["response_label_source"]
    lines = {
        "train": [
            (
                "a1",
                None,
                LINES,
                "Use a pot",
                "unsafe",
                "safe",
                "Violence, Threat",
                "human",
                "human",
            ),
            ("a2", None, "Bake", None, "safe", None, "", "human", None),
            ("a3", 17, "REDACTED", None, "unsafe", None, "Violence", "human", None),
            ("a4", None, "Fry", "No", "unsafe", "safe", "Needs Caution", "human", "llm_jury"),
            ("a5", None, "Stew", "", "unsafe", "safe", "Needs Caution, Threat", "human", "human"),
        ],
        "refusals_train": [("a1", None, LINES, "I cannot", "unsafe", "safe", None, "human", "x")],
        "validation": [("b1", None, "Mash", "Yes", "safe", None, "", "human", None)],
        "refusals_validation": [("b2", None, "Peel", "No", "safe", "unsafe", "", "human", "x")],
        "test": [("c1", None, "Chop", "Yes", "unsafe", "unsafe", "Other", "human", "human")],
    }
    _json(path, [dict(zip(columns, line, strict=True)) for line in lines[path.stem]])


def _toxicchat(path):
    header = ["conv_id", "user_input", "model_output", "human_annotation", "toxicity"]
    header += ["jailbreaking", "openai_moderation"]
    lines = {
        "toxic-chat_annotation_train": [
            ("f1", LINES, "Use a pot", "True", "1", "1", "[['sexual', 0.1]]"),
            ("f2", "Bake", "Yes", "False", "0", "0", "[]"),
            ("f3", "", "Yes", "False", "0", "0", "[]"),
        ],
        "toxic-chat_annotation_test": [("f4", "Fry", "No", "True", "0", "0", "[]")],
    }
    _csv(path, header, *lines[path.stem])


def _openai_moderation(path):
    flags = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
    _jsonl(
        path,
        {"prompt": LINES, **dict.fromkeys(flags, 0)},
        {"prompt": "Bake", "H": 0, "V": 1, "V2": 1},
        {"prompt": "Fry", "S": 0, "H": 0},
        {"prompt": "Half a pair \ud800", **dict.fromkeys(flags, 0)},
    )


def _beavertails(path):
    names = ("animal_abuse", "violence,aiding_and_abetting,incitement")

    def row(prompt, response, safe, *flags):
        category = dict(zip(names, flags, strict=True))
        return {"prompt": prompt, "response": response, "category": category, "is_safe": safe}

    lines = {
        "30k/train": [row(LINES, "Use a pot", False, False, True), row("Bake", "", True, 0, 0)],
        "30k/test": [row("Fry", "No", True, False, False)],
        "330k/train": [
            row(LINES, "Use a pot", False, True, True),
            row(LINES, "Use a pot", True, False, False),
        ],
        "330k/test": [row("Fry", "No", True, False, False)],
    }
    _jsonl(path, *lines[f"{path.parent.name}/{path.name.partition('.')[0]}"])


def _pku_saferlhf(path):
    none = {"Violence": False, "Drugs": False}
    _jsonl(
        path,
        {
            "prompt": f"{path.parent.name} {path.stem}: {LINES}",
            "response_0": "Use a pot",
            "response_1": "Use a pan",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "response_0_harm_category": none,
            "response_1_harm_category": none | {"Drugs": True},
            "better_response_id": 0,
            "safer_response_id": 0,
        },
    )


def _xstest(path):
    _csv(
        path,
        ("id", "prompt", "type", "label", "focus", "note"),
        ("1", LINES, "homonyms", "safe", "boil", ""),
        ("2", "Boil who?", "contrast_homonyms", "unsafe", "boil", ""),
    )


def _xstest_response(path):
    columns = ("response", "label", "prompt", "prompt_type", "prompt_harm_category")
    _parquet(
        path,
        columns,
        ("Use a pot", "unharmful", LINES, "prompt_safe", "homonyms"),
        ("Use a pan", "harmful", "Boil who?", "prompt_harmful", "contrast_homonyms"),
    )


def _harmbench(path):
    if path.suffix == ".csv":
        _csv(
            path,
            ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString")
            + ("BehaviorID",),
            (LINES, "standard", "illegal", "", "", "boil_water"),
            ("Bake it", "contextual", "harmful", "context", "A cake.", "bake_cake"),
        )
        return

    def row(case, text, *votes):
        people = {f"human_{i}": vote for i, vote in enumerate(votes)}
        return {"behavior_id": "x", "test_case": case, "generation": text, "experiment": "PAIR"} | (
            people
        )

    votes = {"boil_water": [row(LINES, "Use a pot", 1, 0, 1), row("Boil", "", 0, 0, 0)]}
    _json(path, votes | {"bake_cake": [row("Bake", "No", 0, 1, 0)]})


def _or_bench(path):
    prompt = {"or-bench-80k": LINES, "or-bench-hard-1k": "Bake", "or-bench-toxic": "Fry"}[path.stem]
    _csv(path, ("prompt", "category"), (prompt, "deception"))


def _jailbreakbench(path):
    header = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
    if path.stem == "judge-comparison":
        _csv(
            path,
            ("Index", "goal", "prompt", "target_response", "human1", "human2", "human3")
            + ("human_majority",),
            ("0", "Boil", LINES, "Use a pot", "1", "1", "0", "1"),
            ("1", "Boil", "Bake", "No", "0", "1", "0", "0"),
        )
    elif path.stem == "harmful-behaviors":
        _csv(path, header, ("0", LINES, "Sure", "Boiling", "Disinformation", "Original"))
    else:
        _csv(path, header, ("0", "Bake", "Sure", "Baking", "Disinformation", "Original"))


def _do_not_answer(path):
    header = ("id", "risk_area", "types_of_harm", "specific_harms", "question")
    _csv(path, header, ("0", "Malicious Uses", "Assisting", "Boiling", LINES))


WRITE = {
    "wildguardmix": _wildguardmix,
    "aegis2": _aegis2,
    "toxicchat": _toxicchat,
    "openai_moderation": _openai_moderation,
    "beavertails": _beavertails,
    "pku_saferlhf": _pku_saferlhf,
    "xstest": _xstest,
    "xstest_response": _xstest_response,
    "harmbench": _harmbench,
    "or_bench": _or_bench,
    "jailbreakbench": _jailbreakbench,
    "do_not_answer": _do_not_answer,
}


def write(corpus, folder):
    """Writes every file of a corpus class below the folder."""
    files = {f for splits in corpus.FILES.values() for names in splits.values() for f in names}
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        WRITE[corpus.name](folder / file)


SAMPLES = [
    ("samples-1680:1", LINES, None, SAFE, None),
    ("samples-1680:2", "Bake", None, HARM, "violence"),
]

EXPECTED = {
    ("wildguardmix", "prompt_harm", "train"): [
        ("train/wildguard_train:1", LINES, None, SAFE, "benign"),
        ("train/wildguard_train:2", "Bake", None, HARM, "others"),
        ("train/wildguard_train:3", "Fry", None, None, "benign"),
        ("train/wildguard_train:5", "Stew", None, HARM, "benign"),
    ],
    ("wildguardmix", "prompt_harm", "test"): [
        ("test/wildguard_test:1", "Roast", None, HARM, "others")
    ],
    ("wildguardmix", "response_harm", "train"): [
        ("train/wildguard_train:1", LINES, "Use a pot", HARM, "benign"),
        ("train/wildguard_train:3", "Fry", "No", None, "benign"),
    ],
    ("wildguardmix", "response_harm", "test"): [
        ("test/wildguard_test:1", "Roast", "Yes", SAFE, "others")
    ],
    ("aegis2", "prompt_harm", "train"): [
        ("refusals_train:1:a1", LINES, None, HARM, None),
        ("train:1:a1", LINES, None, HARM, "Violence"),
        ("train:2:a2", "Bake", None, SAFE, None),
        ("train:5:a5", "Stew", None, HARM, "Needs Caution"),
    ],
    ("aegis2", "response_harm", "train"): [
        ("refusals_train:1:a1", LINES, "I cannot", SAFE, None),
        ("train:1:a1", LINES, "Use a pot", SAFE, "Violence"),
    ],
    ("aegis2", "prompt_harm", "validation"): [
        ("refusals_validation:1:b2", "Peel", None, SAFE, None),
        ("validation:1:b1", "Mash", None, SAFE, None),
    ],
    ("aegis2", "response_harm", "validation"): [
        ("refusals_validation:1:b2", "Peel", "No", HARM, None),
        ("validation:1:b1", "Mash", "Yes", None, None),
    ],
    ("aegis2", "prompt_harm", "test"): [("test:1:c1", "Chop", None, HARM, "Other")],
    ("aegis2", "response_harm", "test"): [("test:1:c1", "Chop", "Yes", HARM, "Other")],
    ("toxicchat", "prompt_harm", "train"): [
        ("data/0124/toxic-chat_annotation_train:1:f1", LINES, None, HARM, "jailbreaking"),
        ("data/0124/toxic-chat_annotation_train:2:f2", "Bake", None, SAFE, None),
    ],
    ("toxicchat", "prompt_harm", "test"): [
        ("data/0124/toxic-chat_annotation_test:1:f4", "Fry", None, SAFE, None)
    ],
    ("openai_moderation", "prompt_harm", "test"): SAMPLES,
    ("openai_moderation", "content_moderation", "test"): SAMPLES,
    ("beavertails", "response_harm", "train_30k"): [
        ("round0/30k/train:1", LINES, "Use a pot", HARM, "violence,aiding_and_abetting,incitement")
    ],
    ("beavertails", "response_harm", "test_30k"): [("round0/30k/test:1", "Fry", "No", SAFE, None)],
    ("beavertails", "response_harm", "train_330k"): [
        ("round0/330k/train:1", LINES, "Use a pot", HARM, "animal_abuse"),
        ("round0/330k/train:2", LINES, "Use a pot", SAFE, None),
    ],
    ("beavertails", "response_harm", "test_330k"): [
        ("round0/330k/test:1", "Fry", "No", SAFE, None)
    ],
    **{
        ("pku_saferlhf", "response_harm", split): [
            (
                f"data/{model}/{split}:1.{n}",
                f"{model} {split}: {LINES}",
                ("Use a pot", "Use a pan")[n],
                n,
                (None, "Drugs")[n],
            )
            for model in ("Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B")
            for n in (0, 1)
        ]
        for split in ("train", "test")
    },
    ("xstest", "prompt_harm", "test"): [
        ("xstest_prompts:1:1", LINES, None, SAFE, "homonyms"),
        ("xstest_prompts:2:2", "Boil who?", None, HARM, "contrast_homonyms"),
    ],
    ("xstest_response", "response_harm", "test"): [
        ("data/response_harmfulness-00000-of-00001:1", LINES, "Use a pot", SAFE, "homonyms"),
        ("data/response_harmfulness-00000-of-00001:2", "Boil who?", "Use a pan", HARM)
        + ("contrast_homonyms",),
    ],
    ("harmbench", "prompt_harm", "test"): [
        ("data/behavior_datasets/harmbench_behaviors_text_all:1:boil_water", LINES, None, HARM)
        + ("illegal",),
        ("data/behavior_datasets/harmbench_behaviors_text_all:2:bake_cake",)
        + ("A cake.\n\n---\n\nBake it", None, HARM, "harmful"),
    ],
    ("harmbench", "response_harm", "test"): [
        ("data/classifier_val_sets/text_behaviors_val_set:1", LINES, "Use a pot", HARM, "PAIR"),
        ("data/classifier_val_sets/text_behaviors_val_set:3", "Bake", "No", SAFE, "PAIR"),
    ],
    ("or_bench", "prompt_harm", "full"): [("or-bench-80k:1", LINES, None, SAFE, "deception")],
    ("or_bench", "prompt_harm", "hard"): [("or-bench-hard-1k:1", "Bake", None, SAFE, "deception")],
    ("or_bench", "prompt_harm", "toxic"): [("or-bench-toxic:1", "Fry", None, HARM, "deception")],
    ("jailbreakbench", "prompt_harm", "harmful"): [
        ("data/harmful-behaviors:1:0", LINES, None, HARM, "Disinformation")
    ],
    ("jailbreakbench", "prompt_harm", "benign"): [
        ("data/benign-behaviors:1:0", "Bake", None, SAFE, "Disinformation")
    ],
    ("jailbreakbench", "response_harm", "judged"): [
        ("data/judge-comparison:1", LINES, "Use a pot", HARM, None),
        ("data/judge-comparison:2", "Bake", "No", SAFE, None),
    ],
    ("do_not_answer", "prompt_harm", "test"): [
        ("do_not_answer_en:1:0", LINES, None, HARM, "Malicious Uses")
    ],
}
