"""Cache of what JAX compiles, on disk, so that a training or a command that starts again need not wait for XLA."""

import os
import sys

from keras_robust.files import cache_folder
from keras_robust.machine import processor

SWITCH = "KERAS_ROBUST_COMPILATION_CACHE"
OFF = ("off", "0", "")
FOLDER = "JAX_COMPILATION_CACHE_DIR"  # JAX's own name, which goes first


def keep_compiled() -> None:
    """Has JAX keep its programs in `compiled` of the package's cache folder, apart for each kind of processor.

    What JAX was told itself stays, by its environment variables or in Python. KERAS_ROBUST_COMPILATION_CACHE is "off",
    or names another folder.

    Example:
        >>> keep_compiled()  # of all that is compiled from now on  # doctest: +SKIP
    """
    chosen = os.environ.get(SWITCH)
    if FOLDER in os.environ or (chosen is not None and chosen.lower() in OFF):
        return
    folder = os.path.expanduser(chosen) if chosen else str(cache_folder() / "compiled" / processor())
    jax = sys.modules.get("jax")  # or it reads the variable when it is imported
    if jax is not None:
        if jax.config.jax_compilation_cache_dir is not None:
            return
        jax.config.update("jax_compilation_cache_dir", folder)
    os.environ[FOLDER] = folder
