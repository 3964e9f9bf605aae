"""Protocols between the package and its backends: what each framework's folder offers, and what its trainer calls."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from keras_robust.types import Array, Tensor

Forward = Callable[[Tensor], Tensor]  # from images to logits, in inference mode, weights and states constant


class Autodiff(Protocol):
    """The module `autodiff` of a backend.

    Attributes:
        COMPILES_EACH_SHAPE: whether another batch size is another compilation.
        DIFFERENTIATION: the framework's functions that take gradients: (end of the path of their file, their names).
    """

    COMPILES_EACH_SHAPE: bool
    DIFFERENTIATION: tuple[str, frozenset[str]]

    def input_gradient(self, function: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor) -> tuple[Tensor, Any, Tensor]:
        """`function(x)` gives (losses (batch,), tensors): both, and the gradient of the sum of the losses at x."""

    def compile(self, function: Callable, model: Any, trace: bool = False) -> Callable:
        """A callable of tensors that runs `function(frozen, *tensors)`, where `frozen` is a `Forward` of `model`.

        Keras models are compiled once per input shape where the backend compiles; other callables run as they are,
        unless `trace` says that they can be compiled (which makes constants of what they refer to).
        """

    def concurrent_calls(self) -> int:
        """How many calls of compiled functions, from as many threads, use this machine best."""

    def divide_cores(self, most_calls: int) -> None:
        """Before anything is computed: from now on up to so many such calls share the cores, each with its part."""

    def concrete(self, x: Tensor) -> bool:
        """Whether a tensor holds values now, rather than standing for those of a compiled function."""

    def gradients_possible(self) -> Any:
        """A context that undoes what surrounds it and would refuse all gradients, as `torch.inference_mode` does."""

    def on_host(self, function: Callable[[Array], Array], x: Tensor, shape: tuple) -> Tensor:
        """`function`, from numpy (n, ...) to float32 (n, *shape), inside of what is compiled; no gradient."""


class AdversarialTrainer(Protocol):
    """The model that the mixin `TrainStep` of a backend, in its module `trainer`, is mixed into: what it calls of it.

    `TrainStep` stands before `keras.Model` and has the backend's `train_step` and `test_step`. Beside it the module has
    `example_index(count, before)`: the positions of the `count` examples at hand, int32 (count,), for on TensorFlow
    and PyTorch each device sees its own part of the global batch; after `before` batches of the same update, 0 if not
    given. And `all_examples(x)`: `x` (count, ...) of the whole batch. `TrainStep.synchronize()` brings what the steps
    of a `fit` have done into the variables, where it is elsewhere meanwhile. `TrainStep.reads_first`: whether Keras
    reads a batch before it calls `on_train_batch_begin` for it; a step that fails must then leave `counter` as it was.
    """

    counter: Any  # variable, updates so far

    def _attack_batch(self, frozen: Forward, counter: Tensor, data: Any) -> Any:
        """The adversarial batch of a training step."""

    def _measure(self, frozen: Forward, data: Any) -> None:
        """Adds a batch to the robust accuracy."""

    def _update_averages(self) -> None:
        """Moves the averages of the weights after an update."""

    def _training_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """The logs of a training step, without what only validation measures."""


HOOKS: Sequence[str] = ("_attack_batch", "_measure", "_update_averages", "_training_logs")
