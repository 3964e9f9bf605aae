"""Roots of piecewise linear functions, one per example of a batch: what exact projections come down to."""

from collections.abc import Callable

from keras import ops

from keras_robust.norms.base import flat_sum, ones_where, per_example, tiny
from keras_robust.types import Tensor

ROOT_STEPS = 50  # at most; about eight are needed


def filling(gain: Tensor, speed: Tensor, room: Tensor, needed: Tensor, most: float = float("inf")) -> Tensor:
    """The one t >= 0 per example, (batch,), at which sum(gain * min(t * speed, room)) = needed, and at most `most`.

    The sum is concave in t and linear between the points where an entry's room is used up: Newton's method from t = 0
    never overshoots and ends after finitely many steps, seldom more than ten. Where all the room is not enough, the t
    that uses it up. An example that is done stands still, whatever the others of its batch still need.
    """

    def look(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = per_example(t, gain) * speed
        slope = flat_sum(ones_where(moved < room, gain) * gain * speed)
        rest = needed - flat_sum(gain * ops.minimum(moved, room))
        return rest, slope, ops.logical_and(ops.logical_and(rest > 1e-6 * needed, slope > 0.0), t < most)

    def go_on(t: Tensor, rest: Tensor, slope: Tensor, going: Tensor) -> Tensor:
        return ops.any(going)

    def newton(t: Tensor, rest: Tensor, slope: Tensor, going: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ahead = t + ops.maximum(rest, 0.0) / ops.maximum(slope, tiny(gain))
        t = ops.where(going, ops.minimum(ahead, most), t)
        rest, slope, still = look(t)
        return t, rest, slope, ops.logical_and(going, still)

    zero = 0.0 * needed
    t, *_ = ops.while_loop(go_on, newton, (zero, *look(zero)), maximum_iterations=ROOT_STEPS)
    return t


def threshold_of(excess: Callable, top: Tensor) -> Tensor:
    """The t in [0, top] per example, (batch,), where the falling function `excess` crosses zero; 0 if it is negative.

    By false position with the Illinois rule: the value at an end that stays twice in a row is halved. An example that
    is done stands still, whatever the others of its batch still need.
    """

    def go_on(
        t: Tensor, low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, side: Tensor, going: Tensor
    ) -> Tensor:
        return ops.any(going)

    def narrow(
        t: Tensor, low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, side: Tensor, going: Tensor
    ) -> tuple[Tensor, ...]:
        ahead = low + (high - low) * at_low / ops.maximum(at_low - at_high, tiny(low))
        ahead = ops.where(ops.logical_and(ahead > low, ahead < high), ahead, 0.5 * (low + high))
        value = excess(ahead)
        raised = ops.logical_and(going, value > 0.0)
        lowered = ops.logical_and(going, value <= 0.0)
        tight = ops.logical_or(ahead <= low, ahead >= high)
        done = ops.logical_or(tight, ops.abs(value) <= 1e-6 * scale)
        halved_low = ops.where(ops.logical_and(lowered, side < 0.0), 0.5 * at_low, at_low)
        halved_high = ops.where(ops.logical_and(raised, side > 0.0), 0.5 * at_high, at_high)
        return (
            ops.where(going, ahead, t),
            ops.where(raised, ahead, low),
            ops.where(lowered, ahead, high),
            ops.where(raised, value, halved_low),
            ops.where(lowered, value, halved_high),
            ops.where(raised, 1.0, ops.where(lowered, -1.0, side)),
            ops.logical_and(going, ops.logical_not(done)),
        )

    zero = 0.0 * top
    at_zero, at_top = excess(zero), excess(top)
    scale = -at_top  # nothing moves beyond the top
    start = (zero, zero, top, at_zero, at_top, zero, at_zero > 0.0)
    t, *_ = ops.while_loop(go_on, narrow, start, maximum_iterations=ROOT_STEPS)
    return t
