"""Images that two sources share, byte for byte: what is trained on must not be validated on."""

from hashlib import blake2b

from keras_robust.data.sources.base import EncodedSource, Source

MOST_FILES = 200_000  # whose sizes are looked at


def shared_images(train: Source, held_out: Source) -> list[str]:
    """Names of the images of `held_out` whose files are in `train`, too.

    Sizes are compared first, and contents where sizes are alike, so that little is read.

    Args:
        train, held_out: any sources; none are found of those that are no files, or that have too many.

    Example:
        >>> train, val = (kr.data.source("photos", split) for split in ("train", "val"))  # doctest: +SKIP
        >>> shared_images(train, val)  # doctest: +SKIP
        []
    """
    if not (isinstance(train, EncodedSource) and isinstance(held_out, EncodedSource)) or len(train) > MOST_FILES:
        return []
    wanted: dict[int, list[int]] = {}
    for index in range(len(held_out)):
        size = held_out.file_size(index)
        if size is not None:
            wanted.setdefault(size, []).append(index)
    alike: dict[int, list[int]] = {}
    for index in range(len(train)):
        size = train.file_size(index)
        if size in wanted:
            alike.setdefault(size, []).append(index)
    found: list[int] = []
    for size, indices in alike.items():
        digests = {_digest(train, index) for index in indices}
        found += [index for index in wanted[size] if _digest(held_out, index) in digests]
    return [held_out.name(index) for index in sorted(found)]


def _digest(source: EncodedSource, index: int) -> bytes | None:
    """Of the content; for files that cannot be read one that is like no other."""
    try:
        return blake2b(source.encoded(index), digest_size=16).digest()
    except (ValueError, OSError):
        return source.name(index).encode("utf-8", "surrogateescape")
