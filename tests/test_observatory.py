"""Metrics and alarms against plain NumPy and hand-made cases, then failures injected into runs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from configs import fixmatch, supervised
from ssl_guard import observatory, steps, train
from ssl_guard.algorithms import Target, algorithms_with_defaults
from ssl_guard.augment import ops
from ssl_guard.errors import BadInput
from ssl_guard.writer import read
