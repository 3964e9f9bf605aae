"""Attacks on many images at full batches: each lane of a batch holds one run, and takes the next when it is done."""

from dataclasses import dataclass

import numpy as np
from keras import ops, tree

from keras_robust import backend, random
from keras_robust.attacks.base import loss_scale
from keras_robust.norms import per_example

# A batch is refilled when this part of it is idle: a refill costs the random starts of a whole batch.
IDLE_SHARE = 8
SMALLEST_WIDTH = 8


@dataclass(frozen=True)
class Attempts:
    """What became of a batch of images: the misclassified point of each, and the evaluations of the model it took.

    `x_adv` float32 (n, height, width, channels), the image itself where no run succeeded; `broken` booleans (n,);
    `evaluations` int (n,); `unconfirmed` int: points that the compiled model misclassifies and the uncompiled does not.
    """

    x_adv: np.ndarray
    broken: np.ndarray
    evaluations: np.ndarray
    unconfirmed: int


class Lanes:
    """Runs one attack on one model.

    Args:
        attack: the `Attack`.
        model: a Keras model or any other callable from images to logits.
        stream: number of this attack in the evaluation; its random draws are keyed by (attack.seed, stream, image).
    """

    def __init__(self, attack, model, stream=0):
        self.attack, self.stream = attack, stream
        self._scale = loss_scale(model, attack.loss)
        self._begin = backend.compile(self._begin_lanes, model)
        self._advance = backend.compile(self._advance_lanes, model)
        self._structure = None

    def run(self, x, y, targets, index, batch_size, confirm):
        """Attack a batch of images.

        Args:
            x: float32 (n, height, width, channels).
            y: int32 (n,).
            targets: int32 (n, classes - 1), the classes to aim at, in order.
            index: int32 (n,), places of the images in the data set.
            batch_size: the most lanes; fewer, by powers of two, when fewer are needed.
            confirm: function of candidates and labels: whether the uncompiled model misclassifies them.

        Returns:
            `Attempts`.
        """
        attack = self.attack
        n_attempts = attack.n_restarts * attack.n_targets(targets.shape[1] + 1)
        # All images meet their first target before any meets its second.
        pending = [(image, number) for number in range(n_attempts) for image in range(len(x))][::-1]
        x_adv, broken = x.copy(), np.zeros(len(x), bool)
        evaluations, unconfirmed = np.zeros(len(x), np.int64), 0
        image = number = done = np.zeros(0, np.int32)  # of each lane; image -1: idle
        state = None
        while True:
            active = (image >= 0) & (done < attack.evaluations)
            active[active] = ~broken[image[active]]
            while pending and broken[pending[-1][0]]:
                pending.pop()
            width = lane_count(int(active.sum()) + len(pending), batch_size)
            if not width:
                return Attempts(x_adv, broken, evaluations, unconfirmed)
            image = np.where(active, image, -1)
            if state is None or width < len(image):
                keep = np.flatnonzero(active)
                spare = np.flatnonzero(~active)[: max(0, width - len(keep))]
                keep = np.concatenate([keep, spare]).astype(np.int32)
                if state is None:
                    image, number, done = np.full(width, -1), np.zeros(width, int), np.zeros(width, int)
                else:
                    image, number, done = image[keep], number[keep], done[keep]
                    state = [ops.take(leaf, ops.convert_to_tensor(keep), axis=0) for leaf in state]
                inputs = None
            idle = np.flatnonzero(image < 0)
            if state is None or (pending and len(idle) >= max(1, len(image) // IDLE_SHARE)):
                fresh = []
                for lane in idle:
                    while pending and broken[pending[-1][0]]:
                        pending.pop()
                    if not pending:
                        break
                    image[lane], number[lane] = pending.pop()
                    done[lane] = 0
                    fresh.append(lane)
                inputs = self._inputs(x, y, targets, index, image, number)
                state = self._fill(state, inputs, np.isin(np.arange(len(image)), fresh))
            elif inputs is None:
                inputs = self._inputs(x, y, targets, index, image, number)
            *state, candidates, fooled = self._advance(*inputs, ops.convert_to_tensor(done.astype("int32")), *state)
            live = image >= 0
            np.add.at(evaluations, image[live], np.minimum(attack.chunk, attack.evaluations - done[live]))
            done = done + attack.chunk
            fooled = np.flatnonzero(ops.convert_to_numpy(fooled) & live)
            if len(fooled):
                candidates = ops.convert_to_numpy(candidates)[fooled]
                who = image[fooled]
                confirmed = confirm(candidates, y[who])
                unconfirmed += int((~confirmed).sum())
                x_adv[who[confirmed]] = candidates[confirmed]
                broken[who[confirmed]] = True
                # A lane whose find was not confirmed has nothing better to go on with.
                done[fooled] = attack.evaluations

    def _inputs(self, x, y, targets, index, image, number):
        place = np.maximum(image, 0)
        attack = self.attack
        column = np.minimum(number // attack.n_restarts, targets.shape[1] - 1)
        arrays = (x[place], y[place], targets[place, column], index[place], number)
        return [ops.convert_to_tensor(arrays[0])] + [ops.convert_to_tensor(a.astype("int32")) for a in arrays[1:]]

    def _fill(self, state, inputs, fresh):
        begun = self._begin(*inputs)
        if state is None:
            return list(begun)
        fresh = ops.convert_to_tensor(fresh)
        return [ops.where(per_example(fresh, leaf), new, leaf) for new, leaf in zip(begun, state)]

    def _problem(self, model, x, y, target, index, number):
        attack = self.attack
        keys = random.example_keys(attack.seed, self.stream, index)
        problem = attack.problem(model, x, y, loss_scale=self._scale)
        return attack.attempt(problem, keys, number, target if attack.targeted else None)

    def _begin_lanes(self, model, *inputs):
        state = self.attack.begin(self._problem(model, *inputs))
        self._structure = state
        return tuple(tree.flatten(state))

    def _advance_lanes(self, model, x, y, target, index, number, done, *state):
        problem = self._problem(model, x, y, target, index, number)
        state = tree.pack_sequence_as(self._structure, list(state))
        state = self.attack.iterate(problem, done, state, self.attack.chunk)
        found = self.attack.outcome(problem, state)
        inside = problem.norm.contains(found.x, x, problem.eps)
        fooled = ops.logical_and(ops.logical_not(found.correct), inside)
        return (*tree.flatten(state), found.x, fooled)


def lane_count(needed, largest):
    """The smallest of largest, largest / 2, largest / 4 ... that holds `needed` lanes; 0 if none is needed."""
    width = largest
    while width // 2 >= max(needed, SMALLEST_WIDTH):
        width //= 2
    return width if needed else 0
