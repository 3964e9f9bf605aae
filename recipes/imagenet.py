"""Train a published system on ImageNet: `python recipes/imagenet.py convnext_tiny_convstem --data imagenet`.

The same as `keras-robust train`: --list shows the systems, --help the rest.
"""

import sys

from keras_robust.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
