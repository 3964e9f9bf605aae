"""Serve an exported SavedModel over HTTP; the same as `keras-robust serve`."""

import sys

from keras_robust.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())
