"""NumPy archives: read without pickle, and with sizes that are bounded before they are allocated."""

import math
import zipfile
from os import PathLike

import numpy as np

from keras_robust.files import DAMAGE, check_unpacked_sizes


def read_arrays(path: str | PathLike) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name.

    Raises:
        ValueError: the file is missing, damaged, needs unpickling or unpacks to more than its size allows.

    Example:
        >>> np.savez("figures.npz", robust=np.array([True, False]))
        >>> read_arrays("figures.npz")["robust"].tolist()
        [True, False]
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked_sizes(archive)
            return {entry.filename.removesuffix(".npy"): read_array(archive, entry) for entry in archive.infolist()}
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be read as an .npz: {reason}") from error


def read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array, whose header must agree with the size of its file before it is allocated.

    Raises:
        ValueError: it does not, or the array holds Python objects.
    """
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{entry.filename} is of npy version {version}; accepted are (1, 0) and (2, 0)")
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{entry.filename} holds Python objects, which would need unpickling")
        if size != entry.file_size - file.tell():
            raise ValueError(f"{entry.filename} says {size:,} bytes and has {entry.file_size - file.tell():,}")
        content = file.read()
    if len(content) != size:
        raise ValueError(f"{entry.filename} ends early")
    # A buffer of its own, which may be written to.
    array = np.frombuffer(bytearray(content), dtype, math.prod(shape))
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
