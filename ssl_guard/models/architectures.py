"""The encoders that can be built, by the model_type of a Hugging Face config.json."""

import json
from pathlib import Path

from ssl_guard.errors import BadInput
from ssl_guard.models import bert, deberta, distilbert, electra, modernbert, mpnet, roberta

_ROBERTA = (roberta.RobertaConfig, roberta.RobertaEncoder)
ARCHITECTURES = {
    "bert": (bert.BertConfig, bert.BertEncoder),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": (distilbert.DistilBertConfig, distilbert.DistilBertEncoder),
    "electra": (electra.ElectraConfig, electra.ElectraEncoder),
    "mpnet": (mpnet.MPNetConfig, mpnet.MPNetEncoder),
    "deberta-v2": (deberta.DebertaConfig, deberta.DebertaEncoder),  # DeBERTa-v3 too
    "modernbert": (modernbert.ModernBertConfig, modernbert.ModernBertEncoder),
}


def read_config(folder: Path):
    """The config in a folder's config.json and the encoder's class. Raises BadInput."""
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        model_type = values["model_type"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{file} is not the config.json of a Hugging Face model "
            f"({type(error).__name__}); name a model's folder"
        ) from None
    if model_type not in ARCHITECTURES:
        raise BadInput(
            f"{file} is of model_type {model_type!r}; known are {', '.join(ARCHITECTURES)}"
        )
    config, encoder = ARCHITECTURES[model_type]
    try:
        return config.from_json(values), encoder
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except (TypeError, AttributeError) as error:  # a list where a dict should be, and the like
        raise BadInput(
            f"{file} has a value of the wrong kind ({error}); get the file again"
        ) from None
