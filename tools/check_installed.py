"""An installed wheel with one framework alone: its command, the time of its import, and the smallest training.

Run by `make release` with the interpreter of an environment that holds the wheel and one extra, outside of the
checkout.
"""

import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path

FRAMEWORKS = ("tensorflow", "jax", "torch")
MOST_SECONDS = 2.0  # of an import, which leaves Keras for later


def main() -> None:
    """Print what was found; an exception where the wheel does not work."""
    start = time.perf_counter()
    import keras_robust as kr

    seconds = time.perf_counter() - start
    assert seconds < MOST_SECONDS, f"the import took {seconds:.2f} s"
    place = Path(kr.__file__)
    assert "site-packages" in place.parts, f"{place} is not the installed package"
    assert importlib.metadata.version("keras-robust") == kr.__version__
    command = [str(Path(sys.executable).with_name("keras-robust")), "--help"]
    assert "quickstart" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    import keras
    import numpy as np

    others = [name for name in FRAMEWORKS if name in sys.modules and name != keras.backend.backend()]
    assert not others, f"{others} are imported beside {keras.backend.backend()}"
    rng = np.random.default_rng(0)
    x, y = rng.random((16, 32, 32, 3), dtype=np.float32), np.arange(16) % 2
    net = kr.models.create("vit_tiny_convstem", num_classes=2, input_size=32)
    trainer = kr.AdversarialModel(net, kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    history = trainer.fit(x, y, batch_size=8, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    net.save("model.keras")
    print(f"keras-robust {kr.__version__} on {keras.backend.backend()}: imported in {seconds:.2f} s, trained, saved")


if __name__ == "__main__":
    main()
