"""Names of files in as few bytes as they have, which worker processes look at together."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_END = "\0"  # the only character that no file's name holds


class PackedNames(Sequence[str]):
    """Strings, such as the names of a million files, in two arrays: a tenth of the memory of as many objects.

    Args:
        content: the strings in UTF-8, one after the other, with a zero byte after each; uint8.

    Example:
        >>> names = PackedNames.of(["cat/1.jpg", "dog/2.jpg"])
        >>> names[1], len(names), list(names)
        ('dog/2.jpg', 2, ['cat/1.jpg', 'dog/2.jpg'])
    """

    def __init__(self, content: np.ndarray) -> None:
        self.content = content
        self._ends = np.flatnonzero(content == 0)

    @classmethod
    def of(cls, names: Iterable[str]) -> "PackedNames":
        text = "".join(name + _END for name in names)
        return cls(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) + 1 if place else 0
        return self.content[start : int(self._ends[place])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.content.tobytes().decode("utf-8", "surrogateescape").split(_END)[:-1])
