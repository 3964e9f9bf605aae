"""Batching of attacks on many images: each slot of a batch holds one run, and takes the next when it is done."""

import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops, tree

from keras_robust import backend, random
from keras_robust.attacks.problem import loss_scale
from keras_robust.norms import choose
from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.attacks.problem import Problem


# A batch is refilled when this part of it is idle: a refill costs the random starts of a whole batch.
IDLE_SHARE = 1 / 8
# Batches are multiples of this. On a CPU the rows of such batches come out alike to the last bit, however many there
# are (measured on TensorFlow, oneDNN, for batches of 16 to 192; batches of 8, 13, 50 or 100 differ).
GRANULE = 16
# Where cores can share the slots of a batch, each gets at least this many: narrower ones cost more per slot.
LEAST_WIDTH = 4 * GRANULE


def slot_count(needed: int, largest: int) -> int:
    """Number of slots of a batch that is to hold `needed` runs if it can, and at most `largest`; 0 if none is needed.

    Where each shape is a compilation, as many as allowed. Else the next multiple of `GRANULE`, so that few idle slots
    are computed; the largest one is a multiple too if it is larger than that.
    """
    if needed == 0 or backend.COMPILES_EACH_SHAPE or largest <= GRANULE:
        return largest if needed else 0
    return min(largest // GRANULE, -(-needed // GRANULE)) * GRANULE


def divide_cores(batch_size: int) -> None:
    """Prepare a program that only attacks, before it computes anything: one part of a batch on each part of the cores.

    On TensorFlow and CPUs alone. Else every operation of every part asks for all cores, which takes a quarter longer on
    small nets; a program that also trains wants just that.
    """
    backend.divide_cores(batch_size // LEAST_WIDTH)


@dataclass(frozen=True)
class Examples:
    """Images to attack, which the model classifies correctly, or which it does not take for the goal yet.

    Attributes:
        x: float32 (n, height, width, channels).
        y: int32 (n,).
        targets: int32 (n, classes - 1), the classes to aim at, in order; with a goal it alone, (n, 1).
        index: int32 (n,), places of the images in the data set.
        eps: float32 (n,), the radius for each image; None for that of the attack.
        first_attempt: number of the first run at an image, by which its random draws are keyed.
        known: float64 (n,), distance of the nearest misclassified point known, inf for none; None for all unknown.
    """

    x: np.ndarray
    y: np.ndarray
    targets: np.ndarray
    index: np.ndarray
    eps: np.ndarray | None = None
    first_attempt: int = 0
    known: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Any) -> "Examples":
        """Those in the rows, a slice or int (m,)."""
        eps, known = (None if each is None else each[rows] for each in (self.eps, self.known))
        of_rows = (self.x[rows], self.y[rows], self.targets[rows], self.index[rows], eps)
        return Examples(*of_rows, self.first_attempt, known)


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of an attack on a set of images: the misclassified point of each, and what it took.

    `x_adv` float32 (n, height, width, channels), the image itself where no run succeeded; `misclassified` bool (n,);
    `evaluations` int (n,): gradients (Square: queries) over all runs, until the first misclassified point or, without a
    bound on the perturbation, all of them;
    `unconfirmed` int: runs that ended on a point that the compiled model misclassifies and the uncompiled does not;
    `loss` float32 (n,): the highest loss at which a run ended, -inf without a run to its end.
    """

    x_adv: np.ndarray
    misclassified: np.ndarray
    evaluations: np.ndarray
    unconfirmed: int
    loss: np.ndarray


class SlotRunner:
    """Runs one attack on one model.

    What becomes of an image depends on the seed, its index and the number of slots, not on the images beside it. A run
    ends with the first misclassified point. Without a bound on the perturbation every run goes to its end, for a
    nearer point may follow, and of all runs at an image the nearest point counts.

    Args:
        attack: the `Attack`.
        model: a Keras model or any other callable from images to logits.
        stream: number of this attack in the evaluation; its random draws are keyed by (attack.seed, stream, image).
        trace: compile the model although it is no Keras model, see `backend.compile`.
        side_by_side: the model may be called from several threads at once.
        aims: the examples' one target is a goal: what the model is to take the image for.
    """

    def __init__(
        self,
        attack: Any,
        model: Callable | keras.Layer,
        stream: int = 0,
        trace: bool = False,
        side_by_side: bool = False,
        aims: bool = False,
    ) -> None:
        self.attack, self._side_by_side = attack, side_by_side
        self._program = _program(attack, model, stream, trace, aims)

    def run(self, examples: Examples, batch_size: int, confirm: Callable) -> "Outcomes":
        """Attack images.

        Args:
            examples: the images.
            batch_size: the most slots, see `slot_count`.
            confirm: function of points and the rows of `examples` that they belong to: whether the points are in the
                threat model and misclassified by the uncompiled model.

        Returns:
            `Outcomes`.
        """
        parts = min(backend.concurrent_calls(), batch_size // LEAST_WIDTH) if self._side_by_side else 1
        stop = Event()
        if parts < 2:
            return self._run(examples, batch_size, confirm, stop)
        # Which images share a thread does not depend on the time that each takes.
        rows = [np.arange(part, len(examples), parts) for part in range(min(parts, len(examples)))]
        with ThreadPoolExecutor(len(rows)) as pool:
            running = [
                pool.submit(self._run, examples.take(row), batch_size // parts, partial(_of_part, confirm, row), stop)
                for row in rows
            ]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()  # raises what was raised there
            finally:
                stop.set()  # for the others, after an error or Ctrl-C
        return _interleaved(examples.x, rows, [each.result() for each in running])

    def _run(self, examples: Examples, batch_size: int, confirm: Callable, stop: Any) -> "Outcomes":
        attack, x = self.attack, examples.x
        to_the_end = not attack.threat.is_bounded and examples.eps is None
        distance = np.full(len(x), np.inf)  # of the nearest point so far, where that matters
        n_attempts = attack.n_restarts * attack.n_targets(examples.targets.shape[1] + 1)
        x_adv, winner = x.copy(), np.full(len(x), n_attempts)  # of each image, the first of its runs to succeed
        evaluations, unconfirmed = np.zeros((len(x), n_attempts), np.int64), 0
        loss = np.full(len(x), -np.inf, np.float32)
        # All images meet their first target before any meets its second. Of two runs at one image the earlier counts:
        # it goes on when a later one succeeds, so that the outcome does not depend on which slots were free.
        waiting = [(image, number) for number in range(n_attempts) for image in range(len(x))][::-1]
        slots = _Slots(slot_count(len(waiting), batch_size))
        state: list[Tensor] = []
        inputs: Any = None
        while True:
            if stop.is_set():
                raise CancelledError
            slots.release(winner, attack.evaluations)
            waiting = [(image, number) for image, number in waiting if number < winner[image]]
            width = slot_count(int(slots.busy.sum()) + len(waiting), batch_size)
            if not width:
                used = np.arange(n_attempts) <= winner[:, None]
                misclassified = (winner < n_attempts) | np.isfinite(distance)
                return Outcomes(x_adv, misclassified, (evaluations * used).sum(1), unconfirmed, loss)
            if width < len(slots):
                kept = slots.narrow(width)
                state = [ops.take(leaf, ops.convert_to_tensor(kept), axis=0) for leaf in state]
                inputs = None
            idle = np.flatnonzero(~slots.busy)
            refill = waiting and len(idle) >= max(1, IDLE_SHARE * len(slots))
            if refill:
                for slot in idle[: len(waiting)]:
                    slots.assign(slot, *waiting.pop())
            if refill or inputs is None:
                inputs = self._inputs(examples, slots)
            if refill:
                state = self._fill(state, inputs, slots.done == 0)
            done = ops.convert_to_tensor(slots.done.astype("int32"))
            *state, candidates, misclassified, in_vain, reached = self._program.advance(*inputs, done, *state)
            misclassified, in_vain = ops.convert_to_numpy(misclassified), ops.convert_to_numpy(in_vain)
            busy = np.flatnonzero(slots.busy)
            left = np.minimum(attack.chunk, attack.evaluations - slots.done[busy])
            spent = left if to_the_end else np.minimum(in_vain[busy] + 1, left)
            evaluations[slots.image[busy], slots.number[busy]] += spent
            slots.done += attack.chunk
            over = slots.done >= attack.evaluations
            ended = np.flatnonzero(slots.busy & over)
            if len(ended):
                np.fmax.at(loss, slots.image[ended], ops.convert_to_numpy(reached)[ended])
            misclassified = np.flatnonzero(misclassified & slots.busy & (over | (not to_the_end)))
            if len(misclassified):
                points, image, number = (
                    ops.convert_to_numpy(candidates)[misclassified],
                    slots.image[misclassified],
                    slots.number[misclassified],
                )
                confirmed = confirm(points, image)
                norms = attack.threat.geometry.measure(points, x[image]) if to_the_end else None
                for i in np.flatnonzero(confirmed):
                    if norms is not None and norms[i] < distance[image[i]]:
                        x_adv[image[i]], distance[image[i]] = points[i], norms[i]
                    elif norms is None and number[i] < winner[image[i]]:
                        x_adv[image[i]], winner[image[i]] = points[i], number[i]
                unconfirmed += int((~confirmed & over[misclassified]).sum())

    def _inputs(self, examples: Examples, slots: "_Slots") -> list[Tensor]:
        attack, image = self.attack, np.maximum(slots.image, 0)
        column = np.minimum(slots.number // attack.n_restarts, examples.targets.shape[1] - 1)
        attempts = examples.first_attempt + slots.number
        numbers = (examples.y[image], examples.targets[image, column], examples.index[image], attempts)
        integers = (ops.convert_to_tensor(a.astype("int32")) for a in numbers)
        eps = np.float32(attack.threat.radius) if examples.eps is None else examples.eps[image]
        return [ops.convert_to_tensor(examples.x[image]), ops.convert_to_tensor(eps), *integers]

    def _fill(self, state: list[Tensor], inputs: list[Tensor], fresh: np.ndarray) -> list[Tensor]:
        begun = self._program.begin(*inputs)
        if not state:
            return list(begun)
        fresh = ops.convert_to_tensor(fresh)
        return [choose(fresh, new, old) for new, old in zip(begun, state)]


class _Slots:
    """The run that each slot holds: the place of its image in the call (-1: none), its number, evaluations done."""

    def __init__(self, width: int) -> None:
        self.image, self.number, self.done = np.full(width, -1), np.zeros(width, int), np.zeros(width, int)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def busy(self) -> np.ndarray:
        return self.image >= 0

    def assign(self, slot: int, image: int, number: int) -> None:
        self.image[slot], self.number[slot], self.done[slot] = image, number, 0

    def release(self, winner: np.ndarray, evaluations: int) -> None:
        """Free the slots whose run is over: at its end, or because it or an earlier one of its image succeeded."""
        self.image[(self.done >= evaluations) | (self.number >= winner[self.image])] = -1

    def narrow(self, width: int) -> np.ndarray:
        """Keep `width` slots, with all that are busy, in order; returns their numbers."""
        spare = np.flatnonzero(~self.busy)[: width - int(self.busy.sum())]
        kept = np.sort(np.concatenate([np.flatnonzero(self.busy), spare])).astype(np.int32)
        self.image, self.number, self.done = self.image[kept], self.number[kept], self.done[kept]
        return kept


def _of_part(confirm: Callable, rows: np.ndarray, points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`confirm` for images that are counted within a part, the one at `rows`."""
    return confirm(points, rows[image])


def _interleaved(x: np.ndarray, rows: list[Any], parts: "list[Outcomes]") -> "Outcomes":
    """The `Outcomes` of all images from those of the parts at `rows`."""
    whole = Outcomes(
        x.copy(),
        np.zeros(len(x), bool),
        np.zeros(len(x), np.int64),
        sum(part.unconfirmed for part in parts),
        np.full(len(x), -np.inf, np.float32),
    )
    for row, part in zip(rows, parts):
        whole.loss[row] = part.loss
        whole.x_adv[row], whole.misclassified[row] = part.x_adv, part.misclassified
        whole.evaluations[row] = part.evaluations
    return whole


class _Program:
    """The compiled parts of an attack on a model: the beginning of runs, and a chunk of their evaluations."""

    def __init__(self, attack: Any, model: Callable | keras.Layer, stream: int, trace: bool, aims: bool) -> None:
        self._attack, self._stream, self._aims = attack, stream, aims
        self._scale = loss_scale(model, attack.loss)
        self._structure = None
        self.begin = backend.compile(self._begin, model, trace)
        self.advance = backend.compile(self._advance, model, trace)

    def _problem(
        self, model: Any, x: Tensor, eps: Tensor, y: Tensor, target: Tensor, index: Tensor, number: Tensor
    ) -> "Problem":
        attack = self._attack
        keys = random.example_keys(attack.seed, self._stream, index)
        problem = attack.problem(model, x, y, eps, self._scale)
        problem = attack.attempt(problem, keys, number, target if attack.targeted else None)
        return replace(problem, goal=target) if self._aims else problem

    def _begin(self, model: Any, *inputs: Any) -> tuple[Any, ...]:
        state = self._attack.begin(self._problem(model, *inputs))
        self._structure = tree.map_structure(lambda _: 0, state)
        return tuple(tree.flatten(state))

    def _advance(
        self,
        model: Any,
        x: Tensor,
        eps: Tensor,
        y: Tensor,
        target: Tensor,
        index: Tensor,
        number: Tensor,
        done: Tensor,
        *state: Any,
    ) -> tuple[Tensor, ...]:
        problem = self._problem(model, x, eps, y, target, index, number)
        state = tree.pack_sequence_as(self._structure, list(state))
        state, in_vain = self._attack.iterate(problem, done, state, self._attack.chunk)
        found = self._attack.outcome(problem, state)
        inside = problem.norm.contains(found.x, x, problem.eps)
        misclassified = ops.logical_and(found.misclassified, inside)
        return (*tree.flatten(state), found.x, misclassified, in_vain, ops.cast(found.loss, "float32"))


# Of each Keras model by attack and stream. The radius is an argument of the compiled functions, so that all share them.
_programs: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _program(attack: Any, model: Callable | keras.Layer, stream: int, trace: bool, aims: bool) -> "_Program":
    own = type(attack).__module__.startswith("keras_robust.") and isinstance(attack.loss, str)
    if not isinstance(model, keras.Layer) or not own:  # another's attack may look at more than its arguments
        return _Program(attack, model, stream, trace, aims)
    # How many classes are aimed at is for the runner to know.
    settings = {**attack.arguments(), "threat": attack.threat.norm, "n_target_classes": 0}
    key = (type(attack), *settings.items(), stream, aims)
    programs = _programs.setdefault(model, {})
    if key not in programs:
        programs[key] = _Program(attack, model, stream, trace, aims)
    return programs[key]
