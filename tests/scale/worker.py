"""The command of ssl_guard.main, which dies when it comes to a step, as a machine would.

python tests/scale/worker.py STEP --config=... --workdir=...
"""

import sys

from ssl_guard import main
from ssl_guard.data import pipeline
from ssl_guard.runtime import cli

last, count = int(sys.argv.pop(1)), pipeline.token_counts
calls = []


def until_the_last(batch):
    calls.append(batch)
    if len(calls) == last:
        raise KeyboardInterrupt
    return count(batch)


pipeline.token_counts = until_the_last
cli.run(main.main)
