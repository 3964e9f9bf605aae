"""Export a model to serve it; the same as `keras-robust export`."""

import sys

from keras_robust.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
