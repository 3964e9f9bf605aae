"""From nothing to a robust classifier on two CPU cores; the same as `keras-robust quickstart`."""

import sys

from keras_robust.cli.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
