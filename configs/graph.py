"""Cheap models' scores smoothed over the nearest-neighbour graph of the unlabelled pool.

python -m ssl_guard.main --config=configs/graph.py --workdir=runs/graph

No training: three logistic regressions, their mean rank, and a graph; see
ssl_guard/evaluation/graph_model.py. alpha=0 leaves the ensemble alone, and nodes="labelled" is the
control without unlabelled text.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "graph",
        scores=("tfidf", "lsa", "encoder"),  # features of the logistic regressions
        features=("lsa", "encoder"),  # features of the graph: the mean of their cosines
        nodes="pool",  # "labelled": no unlabelled text
        neighbours=15,
        alpha=0.5,  # weight of the neighbours; 0 for no smoothing
        rounds=10,
        C=10.0,  # inverse L2 penalty
    )
    return base.variant(config, arg)
