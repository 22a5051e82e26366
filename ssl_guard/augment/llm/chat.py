"""What a chat model is asked, and whether its answer can be used: the same for every backend.

Templates are files in templates/. The text they are filled with is data, between tags that end in a
nonce which the text cannot contain, so that no text can close its own tag.
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
    "ok",  # a text to use
    "refused",  # by the model, or by a content filter
    "truncated",  # at max_tokens
    "empty",
    "rejected",  # by the server, which will not take this request: too long, for example
    "failed",  # the request was sent; an error, or no answer that can be read, came back
    "unreachable",  # the request was not sent
)

TOKEN_BYTES = 4  # of UTF-8 text in a token, where nobody counted; English has 4.4 to 4.7


@dataclasses.dataclass(frozen=True)
class Template:
    """A file of templates/: instructions, with $text and the $nonce of its tags to be filled in.

    sha256 is the hexadecimal one of the file.
    """

    name: str
    version: int
    sha256: str
    system: str
    user: str


@dataclasses.dataclass(frozen=True)
class Model:
    """Who answers, and how it draws: all that decides an answer, apart from the request.

    revision: what tells two states of a model of one name apart, such as a commit or a file's hash.
    """

    name: str
    revision: str
    temperature: float
    top_p: float
    max_tokens: int  # of an answer


@dataclasses.dataclass(frozen=True)
class Request:
    """A text to be rewritten. key: what the answer is stored under; seed: of the model's draws."""

    key: str
    seed: int
    source: str
    tags: tuple[str, str]
    messages: tuple[dict[str, str], ...]

    @property
    def tokens(self) -> int:
        """About how many tokens the model reads."""
        return sum(tokens(message["content"]) for message in self.messages)


def load_template(name: str) -> Template:
    """The template of this name. Raises BadInput if there is none."""
    folder = importlib.resources.files("ssl_guard.augment.llm") / "templates"
    names = sorted(path.name.removesuffix(".toml") for path in folder.iterdir())
    if name not in names:
        raise BadInput(f"there is no template {name!r}; choose one of {', '.join(names)}.")
    data = (folder / f"{name}.toml").read_bytes()
    return Template(name, sha256=hashlib.sha256(data).hexdigest(), **tomllib.loads(data.decode()))


def make_request(template: Template, model: Model, source: str, seed: int) -> Request:
    """The template filled with a text; equal arguments give an equal request.

    The key is the hexadecimal sha256 of all that decides the answer. Of a template it takes the
    file's hash, so an edit under the same version is another key.
    """
    what = [template.name, template.version, template.sha256, *dataclasses.astuple(model)]
    key = hashlib.sha256(json.dumps([*what, source, seed]).encode()).hexdigest()
    nonce = key[:16]
    while nonce in source:  # needs a text that contains a part of its own hash
        nonce = hashlib.sha256(nonce.encode()).hexdigest()[:16]
    # One pass: what stands in the text's own "$..." is not looked at.
    fill = {"text": source, "nonce": nonce}
    messages = tuple(
        {"role": role, "content": string.Template(content).substitute(fill).strip()}
        for role, content in (("system", template.system), ("user", template.user))
    )
    return Request(key, seed, source, (f"<text-{nonce}>", f"</text-{nonce}>"), messages)


def judge(request: Request, text: str | None, finish_reason: str | None) -> tuple[str, str | None]:
    """(outcome, text to use, None unless the outcome is OK) of an answer.

    finish_reason: OpenAI's, "stop" for a whole answer. Tags that the model repeated are taken off.
    """
    if finish_reason == "content_filter":
        return REFUSED, None
    if finish_reason == "length":
        return TRUNCATED, None
    if finish_reason != "stop":
        return FAILED, None
    for tag in request.tags:
        text = (text or "").replace(tag, "")
    # JSON can carry half of a surrogate pair, which no UTF-8 file can.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if not text:
        return EMPTY, None
    if is_refusal(text, request.source):
        return REFUSED, None
    return OK, text


def tokens(text: str) -> int:
    """About how many tokens a text has, at least 1."""
    return -(-len(text.encode("utf-8", "replace")) // TOKEN_BYTES) or 1
