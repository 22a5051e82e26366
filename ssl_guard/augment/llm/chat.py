"""Makes requests to chat models and classifies their answers, for every backend.

Templates are files in templates/. The text stands between tags with a nonce that it does not
contain, so that no text can close its own tag.
"""

import dataclasses
import hashlib
import importlib.resources
import json
import string
import tomllib

from ssl_guard.augment.llm.refusals import is_refusal
from ssl_guard.errors import BadInput

OK, REFUSED, TRUNCATED, EMPTY, REJECTED, FAILED, UNREACHABLE = OUTCOMES = (
    "ok",  # a usable text
    "refused",  # by the model, or by a content filter
    "truncated",  # at max_tokens
    "empty",
    "rejected",  # by the server, for example because the request is too long
    "failed",  # an error, no answer, or one that cannot be parsed
    "unreachable",  # the request was not sent
)

TOKEN_BYTES = 4  # UTF-8 bytes per token, to estimate counts; English has 4.4 to 4.7


@dataclasses.dataclass(frozen=True)
class Template:
    """A file of templates/: instructions with $text and the $nonce of its tags.

    sha256: of the file, hexadecimal.
    """

    name: str
    version: int
    sha256: str
    system: str
    user: str


@dataclasses.dataclass(frozen=True)
class Model:
    """A model and its sampling: everything that determines an answer except the request.

    revision: distinguishes versions of a model, such as a commit or a file's hash.
    max_tokens: of an answer.
    """

    name: str
    revision: str
    temperature: float
    top_p: float
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to rewrite a text. key: of the answer in the cache. seed: of the sampling."""

    key: str
    seed: int
    source: str
    tags: tuple[str, str]
    messages: tuple[dict[str, str], ...]

    @property
    def tokens(self) -> int:
        """Estimated prompt tokens."""
        return sum(tokens(message["content"]) for message in self.messages)


def load_template(name: str) -> Template:
    """Loads the template of this name. Raises BadInput if there is none."""
    folder = importlib.resources.files("ssl_guard.augment.llm") / "templates"
    names = sorted(path.name.removesuffix(".toml") for path in folder.iterdir())
    if name not in names:
        raise BadInput(f"there is no template {name!r}; choose one of {', '.join(names)}.")
    data = (folder / f"{name}.toml").read_bytes()
    return Template(name, sha256=hashlib.sha256(data).hexdigest(), **tomllib.loads(data.decode()))


def make_request(template: Template, model: Model, source: str, seed: int) -> Request:
    """Fills the template with a text. Equal arguments give equal requests.

    The key is the hexadecimal sha256 of everything that determines the answer, including the
    template file's hash: an edited template gives other keys even under the same version.
    """
    what = [template.name, template.version, template.sha256, *dataclasses.astuple(model)]
    key = hashlib.sha256(json.dumps([*what, source, seed]).encode()).hexdigest()
    nonce = key[:16]
    while nonce in source:  # only if a text contains part of its own hash
        nonce = hashlib.sha256(nonce.encode()).hexdigest()[:16]
    # A single pass: "$..." in the text itself is not substituted.
    fill = {"text": source, "nonce": nonce}
    messages = tuple(
        {"role": role, "content": string.Template(content).substitute(fill).strip()}
        for role, content in (("system", template.system), ("user", template.user))
    )
    return Request(key, seed, source, (f"<text-{nonce}>", f"</text-{nonce}>"), messages)


def judge(request: Request, text: str | None, finish_reason: str | None) -> tuple[str, str | None]:
    """Returns (outcome, usable text or None) of an answer.

    finish_reason: OpenAI's, "stop" for a complete answer. Tags that the model repeats are removed.
    """
    if finish_reason == "content_filter":
        return REFUSED, None
    if finish_reason == "length":
        return TRUNCATED, None
    if finish_reason != "stop":
        return FAILED, None
    text = text or ""
    for tag in request.tags:
        text = text.replace(tag, "")
    # JSON can hold half of a surrogate pair, which UTF-8 cannot.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if not text:
        return EMPTY, None
    if is_refusal(text, request.source):
        return REFUSED, None
    return OK, text


def tokens(text: str) -> int:
    """Estimates the number of tokens of a text, at least 1."""
    return -(-len(text.encode("utf-8", "replace")) // TOKEN_BYTES) or 1
