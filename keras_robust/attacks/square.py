"""Square Attack: random search with square-shaped changes, from the logits alone (Andriushchenko et al. 2020)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.attacks.base import Attack
from keras_robust.attacks.problem import Found, Problem, no_point_yet
from keras_robust.attacks.square_shapes import Eta, inside, outer_product, positions, start
from keras_robust.checks import check_count, check_number
from keras_robust.norms import per_example, radius
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

# From which query on the part of the image that a square covers is halved once more (section 4.1, for 10,000 queries).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
BLOCK = 100  # queries that are drawn at once
TILES = 5  # per side, in the first change under L2 and L1


def areas(n_queries: int, p_init: float) -> np.ndarray:
    """The part of the image that the square of each query covers, float32 (n_queries,)."""
    halvings = np.searchsorted(HALVINGS, np.arange(n_queries), side="left")
    return (p_init / 2.0**halvings).astype("float32")


def _signs(draws: Tensor) -> Tensor:
    return 1.0 - 2.0 * ops.cast(draws < 0.5, draws.dtype)


def _column(eps: Any) -> Tensor:
    """A radius, or one for each image, to compute with (batch, channels)."""
    return ops.reshape(ops.convert_to_tensor(eps, "float32"), (-1, 1))


def _as_rows(images: Tensor) -> Tensor:
    """(batch, height, width, channels) -> (batch, height, width * channels): broadcasting along channels is slow."""
    batch, height, width, channels = ops.shape(images)
    return ops.reshape(images, (batch, height, width * channels))


class Squares:
    """Linf: vertical stripes first, then squares of one colour, every pixel on the surface of the ball."""

    smallest_side = 1
    odd_sides = False
    n_draws = 2  # for a query, and one for each channel

    def initial(self, problem: Problem) -> Tensor:
        stripes = _signs(random.uniform(problem.keys, problem.x[:, :1]))
        return ops.clip(problem.x + radius(problem.eps, problem.x) * stripes, 0.0, 1.0)

    def proposals(self, problem: Problem, side: Tensor, draws: Tensor) -> Callable:
        """What changes an image into the proposal of query k: a function (k, x) -> x.

        `side` (queries, batch) floats; `draws` (queries, batch, n_draws + channels) uniform in [0, 1).
        """
        shape = _, height, width, channels = ops.shape(problem.x)
        rows, columns = (
            inside(positions(start(draws[..., axis], side, length), length), side)
            for axis, length in enumerate((height, width))
        )
        # More than the width of the ball: clipping then puts the pixels on its surface exactly.
        push = 3.0 * _column(problem.eps) * _signs(draws[..., self.n_draws :])
        columns = ops.repeat(columns, channels, axis=-1) * ops.tile(push, (1, 1, width))
        low, high = (
            _as_rows(ops.clip(problem.x + sign * radius(problem.eps, problem.x), 0.0, 1.0)) for sign in (-1.0, 1.0)
        )

        def propose(k: Any, x: Tensor) -> Tensor:
            change = outer_product(ops.take(rows, k, axis=0), ops.take(columns, k, axis=0))
            return ops.reshape(ops.minimum(ops.maximum(_as_rows(x) + change, low), high), shape)

        return propose


class EtaUpdates:
    """L2 and L1: tiles of bumps and dips first, then a pair of these in one window, paid for with what another held.

    Andriushchenko et al. 2020, section 4.3 and supplement; for L1, Croce & Hein 2021, supplement.
    """

    smallest_side = 3
    odd_sides = True  # so that a bump has a middle
    n_draws = 5

    def __init__(self, order: int, power: int) -> None:
        self.order = order
        self.eta = Eta(order, power)

    def allowance(self, problem: Any, total: Any, held: Any) -> Any:
        """The size that a window's new content may have in each channel, (batch, channels).

        From sums of |change|^order: `total` (batch, 1) over the image, `held` (batch, channels) over both windows.
        """
        raise NotImplementedError

    def settle(self, problem: Any, delta: Tensor) -> Any:
        """The image changed by `delta`, in ball and box."""
        raise NotImplementedError

    def _content(self, delta: Tensor) -> Tensor:
        return delta * delta if self.order == 2 else ops.abs(delta)

    def _size(self, content: Tensor) -> Tensor:
        return ops.sqrt(content) if self.order == 2 else content

    def _rings(self, shape: tuple[Any, ...]) -> Tensor:
        return ops.cast(ops.arange(shape[1] // 2 + 2, dtype="int32"), "float32")

    def initial(self, problem: Problem) -> Tensor:
        x = problem.x
        _, height, width, _ = ops.shape(x)
        side = ops.cast(ops.maximum(height // TILES, 1), "int32")
        margin = (height - side * TILES) // 2
        draws = random.uniform(problem.keys, ops.concatenate([x, x[..., :1]], axis=-1))
        covered, place = [], []
        for axis, length in enumerate((height, width), start=1):
            position = ops.arange(length, dtype="int32") - margin
            tile = position // side
            # One draw for each tile, that of the pixel whose position is the tile's number.
            draws = ops.take(draws, ops.clip(tile, 0, length - 1), axis=axis)
            covered.append(ops.cast(ops.logical_and(position >= 0, tile < length // side), "float32"))
            place.append(ops.cast(position % side, "float32")[None])
        sides = ops.cast(side, "float32") * ops.ones((1,), "float32")
        shapes = []
        for lying in (False, True):
            along = (
                self.eta.along(at, sides, ops.full((1,), halved, dtype="bool"), self._rings(ops.shape(x)))
                for at, halved in zip(place, (not lying, lying))
            )
            (high_rows, by_row), (high_columns, by_column) = along
            shape = ops.minimum(high_rows[..., :, None], high_columns[..., None, :]) * outer_product(by_row, by_column)
            shapes.append((shape * outer_product(*covered))[..., None])
        bumps = ops.where(draws[..., -1:] < 0.5, *shapes)
        return self.settle(problem, bumps * _signs(draws[..., :-1]))

    def proposals(self, problem: Problem, side: Tensor, draws: Tensor) -> Callable:
        """As `Squares.proposals`."""
        shape = batch, height, width, channels = ops.shape(problem.x)
        image = _as_rows(problem.x)
        problem = replace(problem, x=image)
        lying = draws[..., 4] < 0.5
        axes = []
        for axis, (length, halved) in enumerate(((height, ops.logical_not(lying)), (width, lying))):
            place = positions(start(draws[..., axis], side, length), length)
            source = inside(positions(start(draws[..., 2 + axis], side, length), length), side)
            to = inside(place, side)
            high, weight = self.eta.along(place, side, halved, self._rings(shape))
            axes.append(ops.stack([to, source, to * source, high, weight], axis=2))
        rows, columns = axes
        columns = ops.repeat(columns, channels, axis=-1)
        signs = _signs(draws[..., self.n_draws :])

        def by_channel(columns: Tensor) -> Tensor:
            return ops.sum(ops.reshape(columns, (batch, -1, width, channels)), axis=2)

        def along(channels: Tensor) -> Tensor:
            return ops.tile(channels, (1, width))

        def propose(k: Any, x: Tensor) -> Tensor:
            row, column = ops.take(rows, k, axis=0), ops.take(columns, k, axis=0)
            delta = _as_rows(x) - image
            content = self._content(delta)
            # Sums over the target window, the source window and where they overlap, by channel.
            sums = by_channel(ops.matmul(row[:, :3], content) * column[:, :3])
            held = ops.maximum(sums[:, 0] + sums[:, 1] - sums[:, 2], 0.0)
            total = ops.sum(content, axis=(1, 2))[:, None]

            high = ops.minimum(row[:, 3, :, None], column[:, 3, None, :])
            new = high * outer_product(row[:, 4], column[:, 4] * along(ops.take(signs, k, axis=0)))
            new = new + delta * outer_product(row[:, 0], column[:, 0] * along(1.0 / (1e-12 + self._size(sums[:, 0]))))
            size = self._size(by_channel(ops.sum(self._content(new), axis=1))[:, 0])
            scale = self.allowance(problem, total, held) / (1e-12 + size)
            to, source = (outer_product(row[:, i], column[:, i]) for i in (0, 1))
            kept = delta * ((1.0 - to) * (1.0 - source))
            return ops.reshape(self.settle(problem, kept + new * along(scale)[:, None]), shape)

        return propose


class L2EtaUpdates(EtaUpdates):
    def __init__(self) -> None:
        super().__init__(order=2, power=2)

    def allowance(self, problem: Problem, total: Tensor, held: Tensor) -> Tensor:
        return ops.sqrt(ops.maximum(_column(problem.eps) ** 2 - total, 0.0) / held.shape[-1] + held)

    def settle(self, problem: Problem, delta: Tensor) -> Tensor:
        scale = problem.eps / (problem.norm.of(delta) + 1e-12)
        return ops.clip(problem.x + delta * per_example(scale, delta), 0.0, 1.0)


class L1EtaUpdates(EtaUpdates):
    def __init__(self) -> None:
        super().__init__(order=1, power=4)

    def allowance(self, problem: Problem, total: Tensor, held: Tensor) -> Tensor:
        # More than there is: the projection onto the ball then takes it from the smallest changes.
        return ops.maximum(_column(problem.eps) - total, 0.0) + held * held.shape[-1]

    def settle(self, problem: Problem, delta: Tensor) -> Tensor:
        return problem.norm.nearest(problem.x + delta, problem.x, problem.eps)


PROPOSALS: dict[str, Any] = {"Linf": Squares(), "L2": L2EtaUpdates(), "L1": L1EtaUpdates()}


@keras.saving.register_keras_serializable("keras_robust")
class Square(Attack):
    """Square Attack: random search that keeps a square-shaped change whenever the margin shrinks. Needs no gradients.

    Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search";
    L1 from Croce & Hein 2021, "Mind the box".

    Args:
        n_queries: evaluations of the model per run, each a forward pass; the first is that of the initial change.
        p_init: part of the image that the first squares cover.
        n_restarts: runs per image.

    `threat` and `seed` are those of `Attack`; what is returned is misclassified where such a point was met, else of the
    smallest margin.

    Example:
        >>> x_adv = Square(ThreatModel("Linf", 8 / 255), n_queries=200)(model, x, y)
    """

    chunk = BLOCK

    def __init__(
        self, threat: ThreatModel, n_queries: int = 5000, p_init: float = 0.8, n_restarts: int = 1, seed: int = 0
    ) -> None:
        super().__init__(threat, "margin", True, n_restarts, seed, "misclassified")
        self.n_queries = check_count("n_queries", n_queries)
        self.p_init = check_number("p_init", p_init)
        if not 0.0 < self.p_init <= 1.0:
            raise ValueError(f"p_init must lie in (0, 1]; received {p_init!r}.")
        self.evaluations = self.n_queries
        self._proposals = PROPOSALS[threat.norm]
        self._areas = areas(self.n_queries, self.p_init)

    def begin(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        return no_point_yet(self._proposals.initial(problem)).state()

    def steps(self, problem: Problem, i: Any, count: int) -> Callable:
        index = ops.reshape(i, (-1, 1)) + ops.arange(count, dtype="int32")[None]
        index = index + ops.zeros_like(problem.keys[0])[:, None]
        draws = random.numbers(problem.keys, index, self._proposals.n_draws + problem.x.shape[-1])
        side = ops.transpose(self._sides(problem.x, index))
        counts = ops.transpose(index < self.n_queries)
        propose = self._proposals.proposals(problem, side, ops.transpose(draws, (1, 0, 2)))

        def query(k: Any, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            found = Found(*state)
            x = propose(k, found.x)
            return found.merge(Found(x, *problem.value(x)), self.returns, ops.take(counts, k, axis=0)).state()

        return query

    def _sides(self, x: Tensor, index: Tensor) -> Tensor:
        """Side of the square at each query, in pixels, float32; 0 at the first, which is the initial change alone."""
        _, height, width, _ = ops.shape(x)
        height, width = ops.cast(height, "float32"), ops.cast(width, "float32")
        area = ops.take(ops.convert_to_tensor(self._areas), ops.minimum(index, self.n_queries - 1))
        side = ops.maximum(ops.round(ops.sqrt(area * height * width)), float(self._proposals.smallest_side))
        if self._proposals.odd_sides:
            side = side + (1.0 - side % 2.0)
        side = ops.minimum(side, ops.minimum(height, width))
        return ops.where(ops.equal(index, 0), 0.0, side)

    def propagations(self, num_classes: int) -> int:
        return 1

    def run(self, problem: Problem) -> Found:
        blocks, rest = divmod(self.n_queries, BLOCK)
        state = ops.fori_loop(
            0, blocks, lambda b, state: self.iterate(problem, b * BLOCK, state, BLOCK)[0], self.begin(problem)
        )
        if rest:
            state, _ = self.iterate(problem, blocks * BLOCK, state, rest)
        return self.outcome(problem, state)

    def arguments(self) -> dict[str, ThreatModel | float]:
        return {
            "threat": self.threat,
            "n_queries": self.n_queries,
            "p_init": self.p_init,
            "n_restarts": self.n_restarts,
            "seed": self.seed,
        }
