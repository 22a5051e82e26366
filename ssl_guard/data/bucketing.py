"""Chooses the padded lengths of a run's steps: a short table that minimises padding.

A row of the table is a compiled shape of the train step, with a length for each view. Lengths
increase from row to row in every view. A step uses the first row that holds all its views.
"""

import numpy as np


def choose(needs: np.ndarray, cost: np.ndarray, count: int) -> np.ndarray:
    """Chooses the table, int64 [<= count, views], that fits all steps with the fewest tokens.

    needs: int [steps, views], the lengths that the steps need. cost: int [views], the rows of each
    view, which are the tokens of one more place.

    Dynamic programming over the steps in the order of their cost, cut into `count` runs. Each run
    has the length of its longest step. Optimal for one view; for several, optimal among tables
    whose rows follow this order.
    """
    needs = needs[np.argsort(needs @ cost, kind="stable")]
    tops, first = np.unique(np.maximum.accumulate(needs), axis=0, return_index=True)
    held = np.append(first[1:], len(needs))  # steps up to the end of each possible row
    price = tops @ cost
    # total[j]: the tokens of the steps up to j in the best table so far whose last row is j.
    total, previous = price * held, []
    added = np.where(np.tri(len(tops), k=-1), price[:, None] * (held[:, None] - held), np.inf)
    for _ in range(min(count, len(tops)) - 1):
        longer = total + added
        previous.append(longer.argmin(axis=1))
        total = longer.min(axis=1)
    rows = [len(tops) - 1]
    for best in reversed(previous):
        rows.append(best[rows[-1]])
    return tops[rows[::-1]].astype(np.int64)


def first_that_holds(table: np.ndarray, needs: np.ndarray) -> np.ndarray:
    """Finds the row of the table, int [views], for a step that needs these lengths, int [views]."""
    return table[(needs <= table).all(axis=1).argmax()]
