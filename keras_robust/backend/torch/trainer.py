"""PyTorch: autograd.grad on the images, eager, weights detached while the model is attacked."""

from typing import TYPE_CHECKING, Any

import keras
import torch

from keras_robust.backend.torch.autodiff import constants, frozen_call, frozen_on, usable
from keras_robust.backend.torch.compiled import Compiled, CompiledModel


def example_index(count: Any) -> Any:
    return torch.arange(count, dtype=torch.int32)


def all_examples(x: Any) -> Any:
    return x


if TYPE_CHECKING:
    from keras import Model as Base  # what the class is mixed into
else:
    Base = object


class TrainStep(Base):
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
        self.compiled_attack = Compiled(self._attack_on) if compiled else None
        self.compiled_model = CompiledModel(self.model) if compiled else None

    def _should_torch_compile(self) -> bool:
        return False  # what is compiled is compiled here

    def train_step(self, data: Any) -> Any:
        with torch.no_grad():
            data = self._attacked(data)
        self.counter.assign_add(1)
        logs = super().train_step(data)
        with torch.no_grad():
            self._update_averages()
        return self._training_logs(logs)

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

    def test_step(self, data: Any) -> Any:
        with torch.no_grad():
            self._measure(frozen_call(self), keras.tree.map_structure(usable, data))
        return super().test_step(data)
