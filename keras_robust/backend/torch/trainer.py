"""PyTorch: Keras' eager step on the adversarial batch, by one process or several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import keras
import torch

from keras_robust.backend import keras_private
from keras_robust.backend.torch import processes
from keras_robust.backend.torch.autodiff import constants, frozen_call, frozen_on, usable
from keras_robust.backend.torch.compiled import Compiled, CompiledModel
from keras_robust.backend.torch.processes import all_examples, example_index

__all__ = ["TrainStep", "all_examples", "example_index"]

if TYPE_CHECKING:
    from keras import Model as Base  # what the class is mixed into
else:
    Base = object

FOREIGN_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class TrainStep(Base):
    reads_first = True
    compiled_attack: Compiled | None = None

    def compile(
        self,
        optimizer: Any,
        loss: Any = None,
        *,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        **options: Any,
    ) -> None:
        super().compile(optimizer, loss, steps_per_execution=steps_per_execution, jit_compile=jit_compile, **options)
        if steps_per_execution != 1:
            try:  # the installed Keras may do it
                super().make_train_function(force=True)
            except ValueError as error:
                raise ValueError(
                    "steps_per_execution must be 1 on the PyTorch backend "
                    f"with Keras {keras.__version__}; received {steps_per_execution!r}."
                ) from error
        compiled = jit_compile is True
        if processes.shared():
            self._check_distributed(loss, compiled)
        self.compiled_attack = Compiled(self._attack_on) if compiled else None
        self.compiled_model = CompiledModel(self.model) if compiled else None

    def _should_torch_compile(self) -> bool:
        return False  # what is compiled is compiled here

    def make_train_function(self, force: bool = False) -> Callable | None:
        if processes.shared():
            self._agree([*self.variables, *self.optimizer.variables])
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Callable | None:
        if processes.shared():
            self._agree(self.variables)
        return super().make_test_function(force)

    def _agree(self, variables: Any) -> None:
        processes.agree([variable.value for variable in variables])

    def train_step(self, data: Any) -> Any:
        with self._parts_of_batch(data):
            with torch.no_grad():
                data = self._attacked(data)
            with processes.whole_batch(self.model, self.optimizer) if processes.shared() else nullcontext():
                logs = super().train_step(data)
            self.counter.assign_add(1)
        with torch.no_grad():
            self._update_averages()
        return self._training_logs(self._logs_of_all(logs))

    @contextmanager
    def _parts_of_batch(self, data: Any) -> Iterator[None]:
        """Inside, the batch at hand is this process' part of a global one, and metrics are those of the whole."""
        if not processes.shared():
            yield
            return
        with processes.parts_of_batch(len(keras.tree.flatten(data)[0])):
            if self.compiled_attack is not None and not processes.even():
                raise ValueError(
                    "batch_size must be a multiple of the number of processes with jit_compile=True, and so must the "
                    "last batch be: positions in the batch are compiled."
                )
            with processes.of_all_parts(self.metrics_variables):
                yield

    def _logs_of_all(self, logs: Any) -> Any:
        """The logs of a step, from metrics that by now are those of all processes."""
        return {**logs, **self.get_metrics_result()} if processes.shared() else logs

    def _compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super()._compute_loss(x, y, y_pred, sample_weight, training)
        return processes.share_of_loss(loss) if training and processes.shared() else loss

    def _check_distributed(self, loss: Any, compiled: bool) -> None:
        """Refuses what would not be that of the global batch in several processes."""
        for each in (*keras.tree.flatten(loss), self.objective):
            if getattr(each, "reduction", "mean") not in ("sum_over_batch_size", "mean"):
                raise ValueError(
                    "loss must have the reduction 'sum_over_batch_size' in several processes; received "
                    f"{each.reduction!r}."
                )
        if compiled and keras_private.batch_norms(self.model):
            raise ValueError("jit_compile must be 'auto' or False in several processes, as model has batch norm.")
        modules = (module for layer in keras_private.flat_layers(self.model) for module in layer.modules())
        if any(isinstance(module, FOREIGN_BATCH_NORMS) for module in modules):
            raise ValueError(
                "model must normalise batches by keras.layers.BatchNormalization in several processes: that of "
                "torch.nn takes the statistics of its own part of a batch."
            )

    def _attacked(self, data: Any) -> Any:
        if self.compiled_attack is None:
            return self._attack_batch(frozen_call(self), self.counter.value, data)
        data = keras.tree.map_structure(lambda leaf: leaf if leaf is None else keras.ops.convert_to_tensor(leaf), data)
        metrics = [variable.value for variable in self.metrics_variables]
        data, metrics = self.compiled_attack(*constants(self), self.counter.value, metrics, data)
        for variable, value in zip(self.metrics_variables, metrics):
            variable.assign(value)
        return data

    def _attack_on(self, trainable: Any, non_trainable: Any, counter: Any, metrics: Any, data: Any) -> Any:
        """The attack as a pure function of all that it reads; what it counts comes out beside the batch."""
        with keras.StatelessScope(state_mapping=list(zip(self.metrics_variables, metrics))) as scope:
            data = self._attack_batch(frozen_on(self, trainable, non_trainable), counter, data)
        return data, [scope.get_current_value(variable) for variable in self.metrics_variables]

    def synchronize(self) -> None:
        """Nothing to do: steps work on the variables."""

    def test_step(self, data: Any) -> Any:
        with self._parts_of_batch(data):
            with torch.no_grad():
                self._measure(frozen_call(self), keras.tree.map_structure(usable, data))
            logs = super().test_step(data)
        return self._logs_of_all(logs)
