"""Supported encoders by the model_type of a Hugging Face config.json."""

import json
from pathlib import Path

from ssl_guard.errors import BadInput
from ssl_guard.models import bert, deberta, distilbert, electra, modernbert, mpnet, roberta
from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig

_ROBERTA = (roberta.RobertaConfig, roberta.RobertaEncoder)
ARCHITECTURES: dict[str, tuple[type[EncoderConfig], type[Encoder]]] = {
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


def read_config(folder: Path) -> tuple[EncoderConfig, type[Encoder]]:
    """Reads a folder's config.json; returns the config and the encoder class.

    Raises BadInput for a missing, broken or unsupported config.
    """
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
            f"{file} has model_type {model_type!r}; known are {', '.join(ARCHITECTURES)}"
        )
    config, encoder = ARCHITECTURES[model_type]
    try:
        return config.from_json(values), encoder
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except (TypeError, AttributeError) as error:  # such as a list in place of a dict
        raise BadInput(
            f"{file} has a value of the wrong kind ({error}); download the file again"
        ) from None
