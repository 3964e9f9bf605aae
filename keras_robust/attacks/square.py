"""Square Attack: random search with square-shaped changes, from the logits alone (Andriushchenko et al. 2020)."""

import keras
import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.attacks.base import Attack, Found, repeat
from keras_robust.checks import check_count, check_number
from keras_robust.norms import per_example

# From which query on the part of the image that a square covers is halved once more (section 4.1, for 10,000 queries).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
BLOCK = 100  # queries whose random numbers are drawn at once
TILES = 5  # per side, in the first change under L2 and L1


def areas(n_queries, p_init):
    """The part of the image that the square of each query covers, float32 (n_queries,)."""
    halvings = np.searchsorted(HALVINGS, np.arange(n_queries), side="left")
    return (p_init / 2.0**halvings).astype("float32")


class Windows:
    """Where one query looks: square windows of side `side` (batch,), positions from uniform draws (batch,) each."""

    def __init__(self, x, side):
        _, self.height, self.width, self.channels = ops.shape(x)
        self.side = side
        self.rows = ops.cast(ops.arange(self.height, dtype="int32"), "float32")[None]
        self.columns = ops.cast(ops.arange(self.width, dtype="int32"), "float32")[None]

    def place(self, draw_row, draw_column):
        """Coordinates relative to the upper left corner of a random window: (batch, height), (batch, width)."""
        top = ops.floor(draw_row * (ops.cast(self.height, "float32") - self.side + 1.0))
        left = ops.floor(draw_column * (ops.cast(self.width, "float32") - self.side + 1.0))
        return self.rows - top[:, None], self.columns - left[:, None]

    def mask(self, rows, columns):
        """Which pixels the window covers: booleans (batch, height, width, 1)."""
        side = self.side[:, None]
        inside_rows = ops.logical_and(rows >= 0.0, rows < side)
        inside_columns = ops.logical_and(columns >= 0.0, columns < side)
        return ops.logical_and(inside_rows[:, :, None, None], inside_columns[:, None, :, None])


def bump(rows, columns, side, power, order):
    """The change that the L2 and L1 attacks put into a window: a hill beside a valley (section 4.3, supplement).

    Args:
        rows, columns: coordinates in the window, floats that broadcast to (batch, height, width); where these lie
            outside of it the result means nothing.
        side: of the window, (batch,).
        power: of 1 / rank in which the concentric rectangles of a hill are added up.
        order: of the norm (1 or 2) in which hill and valley have the same size and both together size one.

    Returns:
        (batch, height, width).
    """
    side = side[:, None, None]
    upper = ops.floor(side / 2.0)
    lower = side - upper
    in_upper = rows < upper
    extent = ops.where(in_upper, upper, lower)
    row = ops.where(in_upper, rows, rows - upper)
    middle_row, middle_column = ops.floor(extent / 2.0), ops.floor(side / 2.0)
    distance = ops.maximum(ops.abs(row - middle_row), ops.abs(columns - middle_column))
    rings = ops.maximum(middle_row, middle_column) + 1.0
    sums = ops.convert_to_tensor(_partial_sums(power))
    index = ops.cast(ops.clip(ops.stack([distance + 0.0 * rings, rings + 0.0 * distance]), 0, len(sums) - 1), "int32")
    inner, outer = ops.take(sums, index[0]), ops.take(sums, index[1])
    height = ops.maximum(outer - inner, 0.0)
    inside = (rows >= 0.0) & (rows < side) & (columns >= 0.0) & (columns < side)
    height = ops.where(inside, height, 0.0)

    def size(part):
        total = ops.sum(ops.where(part, height**order, 0.0), axis=(1, 2), keepdims=True)
        return ops.maximum(total ** (1.0 / order), 1e-12)

    signed = ops.where(in_upper, height / size(in_upper), -height / size(ops.logical_not(in_upper)))
    return signed / 2.0 ** (1.0 / order)


def _partial_sums(power):
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, 4097, dtype="float64") ** power)]).astype("float32")


def _signs(draws):
    """(batch, channels) uniform draws -> signs (batch, 1, 1, channels)."""
    return ops.where(draws < 0.5, -1.0, 1.0)[:, None, None, :]


class Stripes:
    """Linf: vertical stripes first, then squares of one colour, every pixel on the surface of the ball."""

    def initial(self, problem):
        draws = random.uniform(problem.keys, problem.x[:, :1])
        return ops.clip(problem.x + problem.eps * ops.where(draws < 0.5, -1.0, 1.0), 0.0, 1.0)

    def propose(self, problem, x, side, draws):
        windows = Windows(x, side)
        mask = windows.mask(*windows.place(draws[:, 0], draws[:, 1]))
        square = ops.clip(problem.x + problem.eps * _signs(draws[:, 5:]), 0.0, 1.0)
        return ops.where(mask, square, x)


class Bumps:
    """L2 and L1: tiles of bumps first, then a bump in one window, paid for with what another window held."""

    def __init__(self, power, order):
        self.power, self.order = power, order

    def initial(self, problem):
        x = problem.x
        _, height, width, _ = ops.shape(x)
        side = ops.maximum(ops.cast(height, "int32") // TILES, 1)
        margin = (ops.cast(height, "int32") - side * TILES) // 2
        rows = ops.arange(height, dtype="int32") - margin
        columns = ops.arange(width, dtype="int32") - margin
        draws = random.uniform(problem.keys, ops.concatenate([x, x[..., :1]], axis=-1))
        for axis, place in ((1, rows), (2, columns)):
            draws = ops.take(draws, ops.clip(place // side, 0, ops.shape(draws)[axis] - 1), axis=axis)
        grid = (ops.cast(place % side, "float32") for place in (rows, columns))
        r, c = ops.meshgrid(*grid, indexing="ij")
        sides = ops.cast(side, "float32")[None]
        # All tiles have the same shape; size one is what normalising the whole gives.
        upright, lying = (bump(a[None], b[None], sides, self.power, self.order) for a, b in ((r, c), (c, r)))
        shape = ops.where(draws[..., -1:] < 0.5, upright[..., None], lying[..., None])
        on_tile = [
            (place >= 0) & (place // side < ops.cast(n, "int32") // side)
            for place, n in ((rows, height), (columns, width))
        ]
        covered = (on_tile[0][:, None] & on_tile[1][None])[None, :, :, None]
        delta = ops.where(covered, shape * ops.where(draws[..., :-1] < 0.5, -1.0, 1.0), 0.0)
        return self.settle(problem, delta)

    def settle(self, problem, delta):
        """The change `delta`, of size one at first, brought onto the ball and into the box."""
        raise NotImplementedError

    def propose(self, problem, x, side, draws):
        delta = x - problem.x
        windows = Windows(x, side)
        rows, columns = windows.place(draws[:, 0], draws[:, 1])
        to = windows.mask(rows, columns)
        source = windows.mask(*windows.place(draws[:, 2], draws[:, 3]))
        lying = (draws[:, 4] < 0.5)[:, None, None]
        r, c = rows[:, :, None], columns[:, None, :]
        shape = bump(ops.where(lying, c, r), ops.where(lying, r, c), side, self.power, self.order)
        new = shape[..., None] * _signs(draws[:, 5:])
        new = self.refill(problem, delta, ops.where(to, new, 0.0), to, source)
        return self.settle(problem, ops.where(to, new, ops.where(source, 0.0, delta)))

    def refill(self, problem, delta, new, to, source):
        """`new`, added to what the window `to` holds, at a size that the room left and both windows' content allow."""
        raise NotImplementedError


class L2Bumps(Bumps):
    def __init__(self):
        super().__init__(power=2, order=2)

    def settle(self, problem, delta):
        scaled = problem.eps * delta / per_example(problem.norm.size(delta) + 1e-12, delta)
        return ops.clip(problem.x + scaled, 0.0, 1.0)

    def refill(self, problem, delta, new, to, source):
        square = delta * delta
        held = _channel_sum(ops.where(to, square, 0.0))
        both = _channel_sum(ops.where(ops.logical_or(to, source), square, 0.0))
        unused = problem.eps**2 - ops.sum(square, axis=(1, 2, 3), keepdims=True)
        new = new + ops.where(to, delta, 0.0) / (1e-12 + ops.sqrt(held))
        size = ops.sqrt(ops.maximum(unused, 0.0) / delta.shape[-1] + both)
        return new * (size / (1e-12 + ops.sqrt(_channel_sum(new * new))))


class L1Bumps(Bumps):
    def __init__(self):
        super().__init__(power=4, order=1)

    def settle(self, problem, delta):
        return problem.norm.nearest(problem.x + delta, problem.x, problem.eps)

    def initial(self, problem):
        x = super().initial(problem)
        return problem.norm.project(x, problem.x, problem.eps)

    def refill(self, problem, delta, new, to, source):
        size = ops.abs(delta)
        channels = delta.shape[-1]
        held = ops.sum(ops.where(to, size, 0.0), axis=(1, 2, 3), keepdims=True)
        both = ops.sum(ops.where(ops.logical_or(to, source), size, 0.0), axis=(1, 2, 3), keepdims=True)
        unused = problem.eps - ops.sum(size, axis=(1, 2, 3), keepdims=True)
        new = new + ops.where(to, delta, 0.0) / (1e-10 + held)
        # More than there is: projecting onto the ball afterwards takes it from the smallest changes.
        amount = ops.maximum(unused, 0.0) + channels * both
        return new * (amount / (1e-10 + _channel_sum(ops.abs(new))))


def _channel_sum(values):
    return ops.sum(values, axis=(1, 2), keepdims=True)


PROPOSALS = {"Linf": Stripes(), "L2": L2Bumps(), "L1": L1Bumps()}


@keras.saving.register_keras_serializable("keras_robust")
class Square(Attack):
    """Square Attack: random search that keeps a square-shaped change whenever the margin shrinks. Needs no gradients.

    Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search";
    L1 from Croce & Hein 2021, "Mind the box".

    Args:
        n_queries: evaluations of the model per run, each a forward pass.
        p_init: part of the image that the first squares cover.
        n_restarts: runs per image.

    `threat` and `seed` are those of `Attack`; what is returned is misclassified where such a point was met, else of the
    smallest margin.

    Example:
        >>> x_adv = Square(ThreatModel("Linf", 8 / 255), n_queries=5000)(model, x, y)
    """

    def __init__(self, threat, n_queries=5000, p_init=0.8, n_restarts=1, seed=0):
        super().__init__(threat, "margin", True, n_restarts, seed, "misclassified")
        self.n_queries = check_count("n_queries", n_queries)
        self.p_init = check_number("p_init", p_init)
        if not 0.0 < self.p_init <= 1.0:
            raise ValueError(f"p_init must lie in (0, 1]; received {p_init!r}.")
        self.chunk = BLOCK
        self.evaluations = self.n_queries
        self._proposals = PROPOSALS[threat.norm]
        self._areas = areas(self.n_queries, self.p_init)

    def begin(self, problem):
        loss = ops.full_like(problem.x[:, 0, 0, 0], -float("inf"))
        return Found(self._proposals.initial(problem), loss, ops.ones_like(loss, dtype="bool")).state()

    def iterate(self, problem, i, state, count):
        batch = ops.shape(problem.x)[0]
        index = ops.zeros((batch, 1), "int32") + ops.arange(count, dtype="int32")[None]
        index = index + (i if isinstance(i, int) else ops.reshape(i, (-1, 1)))
        draws = ops.transpose(random.numbers(problem.keys, index, 5 + problem.x.shape[-1]), (1, 0, 2))
        sides = ops.transpose(self._sides(problem.x, index))
        lasts = ops.transpose(index < self.n_queries)

        def query(k, state):
            found = Found(*state)
            # The very first query is the initial change alone, a window of no size.
            x = self._proposals.propose(problem, found.x, ops.take(sides, k, axis=0), ops.take(draws, k, axis=0))
            visited = Found(x, *problem.value(x))
            return found.merge(visited, self.returns, ops.take(lasts, k, axis=0)).state()

        return repeat(0, count, query, state)

    def _sides(self, x, index):
        """Side of the square at each query, in pixels, float32; 0 at the first."""
        _, height, width, _ = ops.shape(x)
        height, width = ops.cast(height, "float32"), ops.cast(width, "float32")
        area = ops.take(ops.convert_to_tensor(self._areas), ops.minimum(index, self.n_queries - 1))
        side = ops.round(ops.sqrt(area * height * width))
        if self.threat.norm == "Linf":
            side = ops.maximum(side, 1.0)
        else:  # odd, so that a bump has a middle
            side = ops.maximum(side, 3.0)
            side = side + (1.0 - side % 2.0)
        side = ops.minimum(side, ops.minimum(height, width))
        return ops.where(ops.equal(index, 0), 0.0, side)

    def run(self, problem):
        state = self.begin(problem)
        blocks, rest = divmod(self.n_queries, BLOCK)
        if blocks:

            def block(b, state):
                return self.iterate(problem, b * BLOCK + ops.zeros_like(problem.keys[0]), state, BLOCK)

            state = ops.fori_loop(0, blocks, block, state)
        if rest:
            state = self.iterate(problem, blocks * BLOCK, state, rest)
        return Found(*state)

    def _arguments(self):
        return {
            "threat": self.threat,
            "n_queries": self.n_queries,
            "p_init": self.p_init,
            "n_restarts": self.n_restarts,
            "seed": self.seed,
        }
