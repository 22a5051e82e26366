"""Encoder weights between Flax parameters and safetensors files under Hugging Face names.

A config's hf_names maps Flax modules to Hugging Face modules, {} standing for a layer's number.
PyTorch keeps a kernel transposed and calls every kernel, table and scale "weight".
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

# Of the encoder inside a larger model.
PREFIXES = re.compile(r"^(bert|roberta|distilbert|electra|mpnet|deberta|model)\.")
# Heads of other tasks, buffers, and the position table that some DeBERTas keep and never read.
UNUSED = re.compile(
    r"pooler\.|cls\.|classifier\.|pre_classifier\.|qa_outputs\.|lm_head\.|head\.|decoder\.|"
    r"vocab_(transform|layer_norm|projector)\.|sequence_summary\.|discriminator_predictions\.|"
    r"generator_(predictions|lm_head)\.|(lm|mask)_predictions\.|"
    r"embeddings\.position_embeddings\.weight$|.*(position_ids|token_type_ids|inv_freq)$"
)
FLOATS = ("float16", "bfloat16", "float32")


def load(folder: str | Path, template, hf_names: dict[str, str], *, unused_layers=range(0)):
    """The encoder of a model's folder as a tree of float32 NumPy arrays shaped like `template`.

    Half-precision weights are cast; `unused_layers` are the numbers of the stored layers to leave
    out. Weights in several files are read one tensor at a time. Raises BadInput naming the file
    that is missing or not of the model, or the tensor that is missing, unexpected, of another
    shape, not of floating point or not finite.
    """
    shapes = {path: leaf.shape for path, leaf in flatten_dict(template, sep="/").items()}
    wanted = {_hf_name(path, hf_names): path for path in shapes}
    leaves = {}
    for file, full_name, read in _tensors(Path(folder)):
        name = PREFIXES.sub("", full_name)
        # BERT's first checkpoints keep TensorFlow's names of the LayerNorm.
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
    """The head that names masked words, shaped like `template` (masked_lm.Head's parameters), or
    None if the folder's weights have none, or one with a table of words of its own.

    A bias that the architecture leaves out is 0. Raises BadInput as `load` does.
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
    """The head that a text classifier was fine-tuned with, shaped like `template`
    (sequence_classification.Head's parameters). Raises BadInput as `load` does.
    """
    shapes, leaves = _head_leaves(folder, template, hf_names)
    if missing := sorted(shapes.keys() - leaves.keys()):
        raise BadInput(
            f"{folder} has no tensor {_head_name(missing[0], hf_names)}: it holds an encoder alone "
            "or the head of another task; give a checkpoint that was fine-tuned to classify texts"
        )
    return unflatten_dict(leaves, sep="/")


def save(file: str | Path, encoder, hf_names: dict[str, str]) -> Path:
    """Writes the encoder's parameters as a safetensors file that PyTorch transformers loads."""
    data = safetensors.numpy.save(to_hf(encoder, hf_names), metadata={"format": "pt"})
    atomic_write(file, data)
    return Path(file)


def save_pretrained(folder: str | Path, encoder, config, source: str | Path) -> Path:
    """Writes the encoder as a model folder that transformers' AutoModel loads.

    The config.json is that of the folder `source`, which the encoder was built from, with the
    number of layers that are kept; tokenizer files come along. A pooler is not written, since a
    classifier here has none: AutoModel.from_pretrained(folder, add_pooling_layer=False).
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


def to_hf(encoder, hf_names: dict[str, str]) -> dict[str, np.ndarray]:
    """A tree shaped like the encoder's parameters (or gradients) as float32 tensors by HF name."""
    return {
        _hf_name(path, hf_names): np.ascontiguousarray(
            _transposed(path, np.asarray(leaf, "float32"))
        )
        for path, leaf in flatten_dict(encoder, sep="/").items()
    }


_ADVICE = "the weights and config.json must belong to one model"


def _tensors(folder) -> Iterator[tuple]:
    """(file, name, a function that reads it) for every tensor of a model's folder."""
    listed = weight_files(folder)
    for file in sorted(set(listed.values())) if listed else [folder / WEIGHTS]:
        try:
            with safe_open(file, "numpy") as stored:
                names = list(stored.keys())
                if listed:
                    expected = {name for name, where in listed.items() if where == file}
                    for name in sorted(expected ^ set(names)):
                        told = "lacks a tensor that" if name in expected else "has a tensor that"
                        word = "lists" if name in expected else "does not list there"
                        raise BadInput(f"{file} {told} {INDEX} {word}, {name}; get the model again")
                for name in names:
                    yield file, name, lambda stored=stored, name=name: stored.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BadInput(
                f"{file} cannot be read as safetensors ({error}); get it again"
            ) from None


def _hf_name(path, hf_names):
    module, leaf = path.rsplit("/", 1)
    numbers = re.findall(r"\d+", module)
    name = hf_names[re.sub(r"\d+", "{}", module)].format(*numbers)
    return f"{name}.bias" if leaf == "bias" else f"{name}.weight"


def _head_leaves(folder, template, hf_head):
    """Shapes of the template by path, and the tensors that the folder's weights have of them."""
    shapes = {path: leaf.shape for path, leaf in flatten_dict(template, sep="/").items()}
    wanted = {_head_name(path, hf_head): path for path in shapes}
    leaves = {
        wanted[name]: _checked(file, name, read(), wanted[name], shapes)
        for file, name, read in _tensors(Path(folder))
        if name in wanted
    }
    return shapes, leaves


def _head_name(path, hf_head):
    module, _, leaf = path.rpartition("/")
    return f"{hf_head[module]}.{'bias' if leaf == 'bias' else 'weight'}"


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
            f"{file}: tensor {name} holds infinite or undefined numbers; get the file again"
        )
    return _transposed(path, tensor)
