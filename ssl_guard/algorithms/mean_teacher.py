"""Mean Teacher (Tarvainen and Valpola, arXiv 1703.01780, section 2): a Pi-model whose first pass is
run by the moving average of the weights.

    theta' <- m theta' + (1 - m) theta              after each update; m = config.optim.ema_decay,
                                                    smaller at first, see `update_average`
    q = softmax(z(u; theta', noise 1)), without gradient
    L = mean_b CE(y_b, p(x_b)) + lambda_u r(t) mean_u mean_c (p_c(u; theta, noise 2) - q_c)^2
    r(t) = min(1, t / (ramp T))                     linear over the first `ramp` of the run

Teacher and student both run with dropout, each with a mask of its own; theta' is also what gets
evaluated. As in google-research/mixmatch (lambda_u = 50, m = 0.999) the loss is on unlabelled rows
and the ramp linear; the paper includes the labelled rows and ramps by exp(-5 (1 - t / ramp)^2).

(The reimplementation in USB takes the student's prediction from the teacher's pass, so that the
loss has no gradient, and averages nothing on text, m = 0: its text results are supervised ones.)

State: the averaged weights, which TrainState holds; nothing per pool example.
"""

from ssl_guard.algorithms import pi_model
from ssl_guard.algorithms.base import Algorithm


def make(*, unlabelled_weight: float = 50.0, ramp: float = 0.4) -> Algorithm:
    """Builds the method.

    unlabelled_weight: lambda_u >= 0; ramp: share of the run in [0, 1] over which it grows from
    0, 0 for none."""
    student = pi_model.make(unlabelled_weight=unlabelled_weight, ramp=ramp)
    return student._replace(teacher="ema")
