"""The command line as `python -m keras_robust`."""

import sys

from keras_robust.cli import main

if __name__ == "__main__":
    sys.exit(main())
