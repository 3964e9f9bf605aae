"""The precision in which a model is evaluated."""

import keras


def as_float32(model: keras.Model) -> keras.Model:
    """The model with every layer in float32: itself where it is so already, else rebuilt with the same weights.

    A model saved under a mixed policy reloads with that policy, whatever the global one is; the rounding of 16-bit
    layers would make it look more robust than it is, because an attack follows their gradients.
    """
    config = keras.saving.serialize_keras_object(model)
    wanted = _with_float32_policies(config)
    if wanted == config:
        return model
    rebuilt = keras.saving.deserialize_keras_object(wanted)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _with_float32_policies(config):
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _with_float32_policies(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32_policies(value) for value in config)
    return config
