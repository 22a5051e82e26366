"""Training runs."""

from ssl_guard.train.run import train_and_evaluate

__all__ = ["train_and_evaluate"]
