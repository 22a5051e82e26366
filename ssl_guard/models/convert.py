"""Converts weights between Flax parameters and safetensors files with Hugging Face names.

A config's hf_names maps Flax modules to Hugging Face modules; {} stands for the layer number.
PyTorch stores kernels transposed and calls kernels, tables and scales "weight".
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from ssl_guard.errors import BadInput
from ssl_guard.models.pretrained import INDEX, TOKENIZER_FILES, WEIGHTS, weight_files
from ssl_guard.runtime.files import atomic_write

# Prefixes of the encoder inside a larger model.
PREFIXES = re.compile(r"^(bert|roberta|distilbert|electra|mpnet|deberta|model)\.")
# Heads of other tasks, buffers, and the unused position table of some DeBERTa checkpoints.
UNUSED = re.compile(
    r"pooler\.|cls\.|classifier\.|pre_classifier\.|qa_outputs\.|lm_head\.|head\.|decoder\.|"
    r"vocab_(transform|layer_norm|projector)\.|sequence_summary\.|discriminator_predictions\.|"
    r"generator_(predictions|lm_head)\.|(lm|mask)_predictions\.|"
    r"embeddings\.position_embeddings\.weight$|.*(position_ids|token_type_ids|inv_freq)$"
)
FLOATS = ("float16", "bfloat16", "float32")


def load(folder: str | Path, template, hf_names: dict[str, str], *, unused_layers=range(0)):
    """Loads the encoder of a model folder as float32 NumPy arrays shaped like `template`.

    unused_layers: numbers of stored layers to skip. Half-precision weights are cast. Raises
    BadInput naming the file that is missing or broken, or the tensor that is missing, unexpected,
    of another shape, not floating point or not finite.
    """
    shapes, wanted = _wanted(template, hf_names)
    leaves = {}
    for file, full_name, read in _tensors(Path(folder)):
        name = PREFIXES.sub("", full_name)
        # Early BERT checkpoints use TensorFlow's LayerNorm names.
        name = re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))
        layer = re.search(r"\blayers?\.(\d+)\.", name)
        if layer and int(layer[1]) in unused_layers:
            continue
        path = wanted.pop(name, None)
        if path is not None:
            leaves[path] = _checked(file, full_name, read(), path, shapes)
        elif not UNUSED.match(name):
            raise BadInput(f"{file} has an unexpected tensor {full_name}; {_ADVICE}")
    if wanted:
        raise BadInput(f"{folder} has no tensor {min(wanted)}; {_ADVICE}")
    return unflatten_dict(leaves, sep="/")


def load_head(folder: str | Path, template, config) -> dict | None:
    """Loads the masked-LM head, shaped like `template` (parameters of masked_lm.Head).

    Returns None if the folder has no such head or one with untied word embeddings. Biases that the
    architecture lacks are 0. Raises BadInput as `load` does.
    """
    values = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if values.get("tie_word_embeddings") is False:
        return None
    shapes, leaves = _head_leaves(folder, template, config.hf_head)
    missing = shapes.keys() - leaves.keys()
    if any(not path.endswith("bias") for path in missing):
        return None
    leaves |= {path: np.zeros(shapes[path], np.float32) for path in missing}
    return unflatten_dict(leaves, sep="/")


def load_classification_head(folder: str | Path, template, hf_names: dict[str, str]) -> dict:
    """Loads a classification head, shaped like `template` (parameters of heads.Heads, kind "hf").

    Raises BadInput as `load` does.
    """
    shapes, leaves = _head_leaves(folder, template, hf_names)
    if missing := sorted(shapes.keys() - leaves.keys()):
        raise BadInput(
            f"{folder} has no tensor {_hf_name(missing[0], hf_names)}: it holds only an encoder "
            "or the head of another task; use a checkpoint fine-tuned for text classification"
        )
    return unflatten_dict(leaves, sep="/")


def load_hidden(folder: str | Path, template, hf_names: dict[str, str]) -> dict:
    """Loads the hidden layers of a classification head that a pretrained model has: {module: ...}.

    Those are BERT's pooler and ModernBERT's head; transformers fine-tunes them too. The other
    modules of `template` (parameters of heads.Heads), and those of hf_names {}, are left out.
    """
    hidden = {
        name: leaves
        for name, leaves in template.items()
        if re.sub(r"\d+", "{}", name) in hf_names and not name.startswith("output")
    }
    found: dict = {}
    for name, leaves in hidden.items():
        shapes, loaded = _head_leaves(folder, {name: leaves}, hf_names)
        if loaded.keys() == shapes.keys():
            found |= unflatten_dict(loaded, sep="/")
    return found


def save(file: str | Path, encoder, hf_names: dict[str, str]) -> Path:
    """Writes the encoder as a safetensors file that transformers loads."""
    tensors = to_hf(encoder, hf_names)
    atomic_write(file, safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    return Path(file)


def save_pretrained(folder: str | Path, encoder, config, source: str | Path) -> Path:
    """Writes the encoder as a model folder that transformers' AutoModel loads.

    The config.json of `source`, the model folder the encoder was built from, is copied with the
    number of layers updated, and the tokenizer files unchanged. No pooler is written: load with
    AutoModel.from_pretrained(folder, add_pooling_layer=False).
    """
    folder, source = Path(folder), Path(source)
    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values.pop("torch_dtype", None)
    values |= config.to_json() | {"dtype": "float32"}
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)
    atomic_write(folder / "config.json", json.dumps(values, indent=2) + "\n")
    save(folder / WEIGHTS, encoder, config.hf_names)
    return folder


# Prefix of the encoder in AutoModelForSequenceClassification, and its class, by model_type.
HF_CLASSES = {
    "bert": ("bert", "Bert"),
    "roberta": ("roberta", "Roberta"),
    "xlm-roberta": ("roberta", "XLMRoberta"),
    "camembert": ("roberta", "Camembert"),
    "distilbert": ("distilbert", "DistilBert"),
    "electra": ("electra", "Electra"),
    "mpnet": ("mpnet", "MPNet"),
    "deberta-v2": ("deberta", "DebertaV2"),
    "modernbert": ("model", "ModernBert"),
}


def save_classifier(folder: str | Path, params, classifier, source: str | Path, *, labels) -> None:
    """Writes config.json and weights that AutoModelForSequenceClassification loads.

    params: {"encoder", "head"} of a models.Classifier with one head of kind "hf". source: the model
    folder that it was built from. labels: names of its outputs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
    prefix, family = HF_CLASSES[values["model_type"]]
    for key in ("torch_dtype", "num_labels"):
        values.pop(key, None)
    values |= classifier.config.to_json() | {
        "architectures": [f"{family}ForSequenceClassification"],
        "dtype": "float32",
        "id2label": {str(number): name for number, name in enumerate(labels)},
        "label2id": {name: number for number, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    if values["model_type"] == "modernbert":
        values["classifier_pooling"] = classifier.pooling
    encoder = to_hf(params["encoder"], classifier.config.hf_names)
    tensors = {f"{prefix}.{name}": tensor for name, tensor in encoder.items()}
    tensors |= to_hf(params["head"], classifier.hf_head)
    atomic_write(folder / "config.json", json.dumps(values, indent=2) + "\n")
    atomic_write(folder / WEIGHTS, safetensors.numpy.save(tensors, metadata={"format": "pt"}))


def to_hf(encoder, hf_names: dict[str, str]) -> dict[str, np.ndarray]:
    """Converts a tree shaped like the encoder's parameters to float32 tensors by HF name."""
    return {
        _hf_name(path, hf_names): np.ascontiguousarray(
            _transposed(path, np.asarray(leaf, "float32"))
        )
        for path, leaf in flatten_dict(encoder, sep="/").items()
    }


_ADVICE = "the weights and config.json must belong to one model"


def _tensors(folder) -> Iterator[tuple]:
    """Yields (file, name, function that reads the tensor) for every tensor of a model folder."""
    listed = weight_files(folder)
    for file in sorted(set(listed.values())) if listed else [folder / WEIGHTS]:
        try:
            with safe_open(file, "numpy") as stored:
                names = list(stored.keys())
                if listed:
                    expected = {name for name, where in listed.items() if where == file}
                    for name in sorted(expected ^ set(names)):
                        verb, listing = "has", "does not list there"
                        if name in expected:
                            verb, listing = "lacks", "lists"
                        raise BadInput(
                            f"{file} {verb} a tensor that {INDEX} {listing}, {name}; download the "
                            "model again"
                        )
                for name in names:
                    yield file, name, lambda stored=stored, name=name: stored.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BadInput(
                f"{file} cannot be read as safetensors ({error}); download it again"
            ) from None


def _hf_name(path, hf_names):
    module, _, leaf = path.rpartition("/")
    numbers = re.findall(r"\d+", module)
    name = hf_names[re.sub(r"\d+", "{}", module)].format(*numbers)
    return f"{name}.bias" if leaf == "bias" else f"{name}.weight"


def _wanted(template, hf_names):
    """Returns {path: shape} and {HF name: path} of a tree of parameters."""
    shapes = {path: leaf.shape for path, leaf in flatten_dict(template, sep="/").items()}
    return shapes, {_hf_name(path, hf_names): path for path in shapes}


def _head_leaves(folder, template, hf_head):
    """Returns {path: shape} of the template and {path: tensor} of what the folder has of it."""
    shapes, wanted = _wanted(template, hf_head)
    wanted = {PREFIXES.sub("", name): path for name, path in wanted.items()}
    leaves = {}
    for file, full_name, read in _tensors(Path(folder)):
        path = wanted.get(PREFIXES.sub("", full_name))
        if path is not None:
            leaves[path] = _checked(file, full_name, read(), path, shapes)
    return shapes, leaves


def _transposed(path, tensor):
    return tensor.T if path.endswith("/kernel") else tensor


def _checked(file, name, tensor, path, shapes):
    if tensor.dtype.name not in FLOATS:
        raise BadInput(
            f"{file}: tensor {name} is {tensor.dtype}; only {', '.join(FLOATS)} can be read"
        )
    expected = shapes[path][::-1] if path.endswith("/kernel") else shapes[path]
    if tensor.shape != expected:
        raise BadInput(f"{file}: tensor {name} has shape {tensor.shape}, not {expected}; {_ADVICE}")
    tensor = tensor.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise BadInput(
            f"{file}: tensor {name} holds infinite or undefined numbers; download the file again"
        )
    return _transposed(path, tensor)
