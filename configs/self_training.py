"""Self-training: a new student learns the soft labels of diverse teachers.

python -m ssl_guard self_train --config=configs/self_training.py --workdir=runs/self_training

trains two teachers too. With other teachers:

python -m ssl_guard teach --config=configs/self_training.py --to=runs/soft \\
    --teachers=runs/supervised,runs/graph,scores:judge.jsonl
python -m ssl_guard.main --config=configs/self_training.py --workdir=runs/student \\
    --config.data.soft_labels=runs/soft

As in experiments/ladder (200 labelled prompts, 5 seeds): F1 70.4 ± 1.2, AUPRC 80.6 ± 0.7 with the
two teachers, F1 72.8 ± 0.7, AUPRC 82.2 ± 0.8 with a 0.5B chat model's states as the teacher's
features, F1 74.6 ± 1.9, AUPRC 84.2 ± 0.9 with a 1.5B model's (states:FILE); F1 71.1 ± 1.9, AUPRC
79.8 ± 2.3 of the baseline.
"""

from ssl_guard import config as base


def get_config(arg=None):
    config = base.default(
        "self_training",
        supervised_weight=0.5,  # lambda_l, of the labelled rows; the soft labels weigh 1
    )
    config.augment.name = "identity"  # ("tfidf",) and so on add the noise of Noisy Student
    config.augment.ops = ("identity",)
    config.augment.copies = 1
    config.train.labelled_batch, config.train.unlabelled_batch = 8, 24
    config.train.steps, config.train.eval_every_steps = 150, 50
    config.optim.freeze = ()
    config.data.packing = True
    return base.variant(config, arg)
