import keras
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from keras_robust.segmentation.resizing import GridAverage, ResizeLike


@pytest.mark.parametrize("size", [(1, 2), (5, 7), (12, 6)])
def test_beside_pytorch(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2))
    for cells in (1, 3, 6):
        ours = keras.ops.convert_to_numpy(GridAverage(cells)(x))
        expected = F.adaptive_avg_pool2d(theirs, cells).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    for target in ((12, 14), (9, 5)):
        if target[0] < size[0]:
            continue
        ours = keras.ops.convert_to_numpy(ResizeLike()((x, np.zeros((2, *target, 1), "float32"))))
        expected = F.interpolate(theirs, target, mode="bilinear", align_corners=False).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
