"""How robust a model is; the same as `keras-robust evaluate`."""

import sys

from keras_robust.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
