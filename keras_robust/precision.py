"""Precision in which a model is evaluated: float32."""

from typing import Any

import keras

from keras_robust.backend import keras_private


def as_float32(model: keras.Model) -> keras.Model:
    """The model with every layer in float32: itself where it is so already, else rebuilt with the same weights.

    A model saved under a mixed policy reloads with that policy, whatever the global one is; the rounding of 16-bit
    layers would make it look more robust than it is, because an attack follows their gradients.

    Raises:
        ValueError: a model with layers in another precision cannot be rebuilt.
    """
    if all(layer.compute_dtype == "float32" for layer in keras_private.flat_layers(model)):
        return model
    try:
        rebuilt = _rebuilt(model)
    except Exception as error:  # whatever a layer's own code raises
        raise ValueError(f"model cannot be rebuilt in float32: {error}") from error
    rebuilt.set_weights(model.get_weights())
    for known in ("preprocessing", "class_names"):  # of a preset or an artefact
        if hasattr(model, known):
            setattr(rebuilt, known, getattr(model, known))
    return rebuilt


def _rebuilt(model: keras.Model) -> keras.Model:
    config = keras.saving.serialize_keras_object(model)
    return keras.saving.deserialize_keras_object(_with_float32_policies(config))


def _with_float32_policies(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _with_float32_policies(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32_policies(value) for value in config)
    return config
