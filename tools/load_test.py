"""Load a server of an exported model; the same as `keras-robust load-test`."""

import sys

from keras_robust.cli.load_test import main

if __name__ == "__main__":
    sys.exit(main())
