"""Runs a command: python -m ssl_guard COMMAND [flags], or ssl-guard COMMAND [flags]."""

import difflib
import runpy
import sys

from ssl_guard.runtime import cli

COMMANDS = {
    "train": ("ssl_guard.main", "train and evaluate one run"),
    "mlm": ("ssl_guard.main", "pre-train an encoder on unlabelled text (configs/mlm.py)"),
    "prepare": ("ssl_guard.commands.prepare", "draw the split and write the shards of a run"),
    "augment": ("ssl_guard.commands.augment", "make strong views of the unlabelled rows"),
    "generate": ("ssl_guard.commands.generate", "write new prompts with a chat model"),
    "data": ("ssl_guard.commands.data", "list, build and describe corpora"),
    "evaluate": ("ssl_guard.commands.evaluate", "score corpora with a finished run"),
    "teach": ("ssl_guard.commands.teach", "write soft labels of the unlabelled rows"),
    "self_train": ("ssl_guard.commands.self_train", "train teachers, and students on their labels"),
    "calibrate": ("ssl_guard.commands.calibrate", "fit thresholds with guarantees"),
    "export": ("ssl_guard.commands.export", "write a run as a moderator (ONNX, model card)"),
    "moderate": ("ssl_guard.commands.moderate", "score a file with a moderator"),
    "report": ("ssl_guard.commands.report", "compare runs in tables and on a page"),
}


def main() -> None:
    """Runs the command named first on the command line. Exits with code 2 for an unknown one."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in COMMANDS:
        if name not in ("", "-h", "--help"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f": did you mean {near[0]}?" if near else "; the commands are listed below."
            print(f"ssl_guard: there is no command {name!r}{hint}", file=sys.stderr)
        lines = [
            "usage: python -m ssl_guard COMMAND [flags]   (COMMAND --help lists its flags)",
            "",
        ]
        lines += [f"  {command:10} {purpose}" for command, (_, purpose) in COMMANDS.items()]
        try:
            print(*lines, sep="\n", flush=True)
        except BrokenPipeError:
            cli.end_quietly()
        sys.exit(0 if name in ("", "-h", "--help") else 2)
    sys.argv = [f"ssl_guard {name}", *arguments]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
