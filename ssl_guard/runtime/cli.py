"""Runs a command: reads its flags, and reports bad input in one sentence with exit code 2."""

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict

from ssl_guard import config as config_module
from ssl_guard.errors import BadInput

FLAGS = flags.FLAGS
BROKEN_PIPE = 128 + 13  # exit code of a process that SIGPIPE ends
INTERRUPTED = 128 + 2  # of one that SIGINT ends
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"  # that a word processor makes of --
RUNNERS = ("local", "direct", "flink", "spark", "dataflow")  # this process, or Apache Beam's
NO_BEAM = (
    "--runner={runner} needs Apache Beam: pip install 'ssl_guard[beam]' in an environment of its "
    "own, see requirements/beam.txt."
)


def run(main: Callable[[list[str]], None], *, words: str = "") -> None:
    """Parses the flags, calls main(argv) and ends the process.

    The docstring of main's module is the help of the command. words: the positional arguments that
    it takes, such as "RUN [RUN ...]"; "" for none.
    """

    def guarded(argv):
        # Orbax and TFDS log every step they take; their failures reach us as exceptions.
        logging.set_verbosity(logging.FATAL)
        try:
            if strays := [word for word in argv[1:] if not words or _meant_as_flag(word)]:
                raise BadInput(_stray(strays[0]))
            main(argv)
            sys.stdout.flush()
        except BadInput as error:
            _fail(error)
        except KeyboardInterrupt:  # commands that train save first, see preemption.py
            print("ssl_guard: stopped by SIGINT.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            end_quietly()

    app.run(guarded, flags_parser=lambda argv: _parse(argv, main.__globals__["__doc__"]))


def required(flag: flags.FlagHolder, name: str):
    """Returns a flag's value. Raises BadInput if it is missing or its config file fails to load."""
    try:
        value = flag.value
        if hasattr(value, "to_dict"):
            value.to_dict()  # a config that failed to load raises only when it is read
    except OSError as error:
        raise BadInput(_unreadable(name, error)) from error
    if value in (None, ""):
        raise BadInput(f"--{name} is missing.")
    return value


def _unreadable(name: str, error: OSError) -> str:
    """Formats the error of a config file that cannot be read, and suggests the nearest one."""
    path = Path(_value_of(name).partition(":")[0])
    known = [*path.parent.glob("*.py"), *Path("configs").glob("*.py")]
    by_name = {file.stem: file for file in reversed(known)}
    if not path.is_file() and (near := difflib.get_close_matches(path.stem, by_name, n=1)):
        return f"--{name}: there is no file {path}: did you mean {by_name[near[0]]}?"
    last = str(error).strip().splitlines()[-1].strip()
    return f"--{name}: {last}; give a file of configs/."


def _value_of(name: str) -> str:
    """Returns the value of a flag on the command line, of --name=VALUE or --name VALUE; or ""."""
    words = [word for argument in sys.argv[1:] for word in argument.split("=", 1)]
    at = words.index(f"--{name}") + 1 if f"--{name}" in words else len(words)
    return words[at] if at < len(words) else ""


def again(command: str) -> str:
    """Returns the command line that runs another command with the config of this one."""
    words = iter(sys.argv[1:])
    # "--config FILE" is two words.
    given = [
        f"--config={next(words, 'CONFIG')}" if word == "--config" else word
        for word in words
        if word.startswith("--config")
    ]
    return " ".join([f"python -m ssl_guard {command}", *(given or ["--config=CONFIG"])])


def pairs(flag: str, given: list[str]) -> dict[str, str]:
    """Parses the items name=value of a list flag."""
    if wrong := [pair for pair in given if "=" not in pair]:
        raise BadInput(f"--{flag}: {wrong[0]!r} must be name=column, such as label=is_harmful.")
    found = dict(pair.split("=", 1) for pair in given)
    if len(found) < len(given):
        raise BadInput(f"--{flag} gives a name twice: give each once.")
    return found


def _parse(argv: list[str], doc: str) -> list[str]:
    if {"--help", "-h", "-help"} & set(argv):
        _show_help(doc)
    argv = [argv[0], *map(_underscored, argv[1:])]
    try:
        return FLAGS(argv)
    except BadInput as error:
        _fail(error)
    except (AttributeError, KeyError) as error:
        # An override names a key that does not exist: suggest the nearest one.
        try:
            check_overrides(FLAGS["config"].parser.parse(_value_of("config")), argv)
        except BadInput as named:
            _fail(named)
        _fail(error)
    except flags.Error as error:
        _fail(error)


def _underscored(argument: str) -> str:
    """Returns an argument with underscores in the name of its flag: --target-fpr=0.1 is fine."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def check_overrides(config: ConfigDict, arguments: list[str]) -> None:
    """Raises BadInput for a command-line override of an unknown key and suggests the nearest one.

    arguments: the command line; only --config.some.key[=value] is checked.
    """
    for argument in arguments:
        if not argument.startswith("--config."):
            continue
        path = argument.removeprefix("--config.").split("=", 1)[0].split(".")
        node = config
        for depth, key in enumerate(path):
            if not isinstance(node, ConfigDict) or key not in node:
                asked = "config." + ".".join(path[: depth + 1])
                raise BadInput(f"there is no {asked}: {_nearest(config, path, depth)}")
            node = node[key]


def _nearest(config: ConfigDict, path: list[str], depth: int) -> str:
    """Suggests a key: the closest sibling, else the same name elsewhere, else all siblings."""
    keys = config_module.leaves(config)
    parent = ".".join(path[:depth])
    siblings = [key for key in keys if key.startswith(parent + "." if parent else "")]
    wanted = ".".join(path)
    # The shared parent does not count as similarity.
    ends = {key[len(parent) :].lstrip("."): key for key in siblings}
    close = difflib.get_close_matches(".".join(path[depth:]), ends, n=1, cutoff=0.6)
    near = [ends[name] for name in close]
    near = near or [key for key in keys if key.split(".")[-1] == path[-1]]
    if not near and parent and siblings:
        return f"its keys are {', '.join(ends)}."
    near = near or difflib.get_close_matches(wanted, keys, n=1, cutoff=0.0)
    return f"did you mean config.{near[0]}?"


def _show_help(doc: str) -> NoReturn:
    """Prints the docstring and the flags of a command, without absl's own flags, and exits."""
    lines = []
    for flag in FLAGS.get_key_flags_for_module(sys.argv[0]):
        value = (flag.default_as_str or "").strip("'")
        default = f" (default: {value})" if value not in ("", "None") else ""
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    try:
        print(f"{doc.strip()}\n\nFlags:", *lines, sep="\n", flush=True)
    except BrokenPipeError:
        end_quietly()
    sys.exit(0)


def _meant_as_flag(word: str) -> bool:
    """Tells whether a word is a flag without its two dashes, and nothing that exists."""
    name = word.lstrip(DASHES).partition("=")[0]
    known = name.startswith("config.") or (name in FLAGS and name != word)
    return known and not os.path.exists(word)


def _stray(word: str) -> str:
    if _meant_as_flag(word):
        return f"{word!r} is not a flag: write --{word.lstrip(DASHES)}."
    return f"unexpected argument {word!r}: this command takes flags only, see --help."


def _fail(error: Exception) -> NoReturn:
    print(f"ssl_guard: {error}", file=sys.stderr)
    sys.exit(2)


def end_quietly() -> NoReturn:
    """Exits after the reader of stdout has closed it, as in `... | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(BROKEN_PIPE)
