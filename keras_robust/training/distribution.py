"""Devices and processes that a training runs on."""

from typing import Any

import keras

from keras_robust.backend import distribution as backend
from keras_robust.checks import check_choice

KINDS = ("auto", "single", "mirrored", "multi_worker", "tpu", "data_parallel")


def start(distribution: str = "auto", verbose: bool = True) -> Any:
    """Prepares this process to train on one or several devices, alone or together with other processes.

    Call it before anything is computed; create, compile and train the model inside `scope()`; on the way out of the
    program call `stop()`.

    Args:
        distribution: "auto", which suits environment and devices, or by backend

            * TensorFlow: "single"; "mirrored", all GPUs of this host (`MirroredStrategy`); "multi_worker", several
              processes (`MultiWorkerMirroredStrategy`) named by TF_CONFIG or a SLURM step; "tpu" (`TPUStrategy`,
              untested).
            * JAX: "single"; "data_parallel", all devices (`keras.distribution.DataParallel`), also those of other
              processes, named by KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID, by a SLURM step or
              by the TPU VM (untested).
            * PyTorch: "single"; "data_parallel", a process for each device, which torchrun, a SLURM step or the same
              variables of Keras name (`torch.distributed`: NCCL between GPUs, gloo between CPUs).
        verbose: whether to print what was chosen.

    Returns:
        A `keras_robust.backend.distribution.Distribution`.

    Raises:
        ValueError: a distribution that the backend does not have, or variables that do not make sense.

    Example:
        >>> distribution = kr.training.distribution.start("auto")  # on a machine with eight GPUs: mirrored, 8 GPUs
        distribution: single, 1 CPU...
        >>> with distribution.scope():
        ...     trainer = kr.AdversarialModel(model, attack)
        ...     trainer.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ...     history = trainer.fit(distribution.batches(dataset), steps_per_epoch=2, verbose=0)
    """
    check_choice("distribution", distribution, KINDS)
    kinds = backend.active.KINDS
    if distribution != "auto" and distribution not in kinds:
        raise ValueError(
            f"distribution must be one of {', '.join(map(repr, ('auto', *kinds)))} on the {keras.backend.backend()} "
            f"backend; received {distribution!r}."
        )
    chosen = backend.active.start(backend.active.detect() if distribution == "auto" else distribution)
    if verbose:
        print(describe(chosen), flush=True)
    return chosen


def describe(distribution: Any) -> Any:
    """One line for people: kind, devices and processes."""
    devices = f"{distribution.devices} {distribution.hardware}{'s' if distribution.devices > 1 else ''}"
    line = f"distribution: {distribution.kind}, {devices}"
    if distribution.processes > 1:
        line += f" in {distribution.processes} processes, of which this is number {distribution.process}"
    return f"{line} ({distribution.hint})" if distribution.hint else line
