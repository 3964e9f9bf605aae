"""Print the table of models; the same as `keras-robust models`."""

import sys

from keras_robust.cli.models import main

if __name__ == "__main__":
    sys.exit(main())
