"""Pure functions of arrays: train step, predict step, optimiser."""

from ssl_guard.steps.predict import feature_step, predict_step
from ssl_guard.steps.training import Apply, init_state, supervised_start, train_step

__all__ = ["Apply", "feature_step", "init_state", "predict_step", "supervised_start", "train_step"]
