"""The CPU as several devices."""

import os

import keras


def virtual_devices(count):
    """Has this process see the CPU as so many devices; to be called before anything is computed. Not on PyTorch."""
    if keras.backend.backend() == "torch":
        return
    if keras.backend.backend() == "jax":  # which looks when it first counts its devices
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
        return
    import tensorflow as tf

    virtual = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], virtual)
