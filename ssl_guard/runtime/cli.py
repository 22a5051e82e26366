"""Command lines: flags in, bad input out as one sentence with exit code 2."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from ssl_guard import config as config_module
from ssl_guard.errors import BadInput


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags, calls main(argv) and ends the process."""

    def guarded(argv):
        # Orbax and TFDS log every step they take; what fails reaches us as an exception as well.
        logging.set_verbosity(logging.FATAL)
        try:
            main(argv)
        except BadInput as error:
            _fail(error)

    app.run(guarded, flags_parser=_parse)


def required(flag: flags.FlagHolder, name: str):
    """A flag's value; raises BadInput if it was not given or its config file cannot be loaded."""
    try:
        value = flag.value
        if hasattr(value, "to_dict"):
            value.to_dict()  # a config that failed to load says so only when it is read
    except OSError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise BadInput(f"--{name}: {last}; give a file of configs/.") from error
    if value is None:
        raise BadInput(f"--{name} is missing.")
    return value


def again(command: str) -> str:
    """The command line that runs another command with the config of this one."""
    given = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    return " ".join([f"python -m ssl_guard {command}", *(given or ["--config=CONFIG"])])


def pairs(flag: str, given: list[str]) -> dict[str, str]:
    """name=value,name=value of the command line."""
    if wrong := [pair for pair in given if "=" not in pair]:
        raise BadInput(f"--{flag}: {wrong[0]!r} must be name=column, such as label=is_harmful.")
    return dict(pair.split("=", 1) for pair in given)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except BadInput as error:
        _fail(error)
    except AttributeError as error:
        # ml_collections met an override of a key that does not exist: say which key was meant.
        try:
            # "--config=FILE" or "--config FILE"
            words = [word for argument in argv for word in argument.split("=", 1)]
            path = words[words.index("--config") + 1]
            config_module.check_overrides(flags.FLAGS["config"].parser.parse(path), argv)
        except BadInput as named:
            _fail(named)
        _fail(error)
    except flags.Error as error:
        _fail(error)


def _fail(error: Exception) -> None:
    print(f"ssl_guard: {error}", file=sys.stderr)
    sys.exit(2)
