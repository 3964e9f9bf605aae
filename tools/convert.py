"""Convert weights from and to PyTorch; the same as `keras-robust convert`."""

import sys

from keras_robust.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
