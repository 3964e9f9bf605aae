"""Shards of a few small images, as other programs write them."""

import io
import json
import os
import tarfile

from PIL import Image

LONG_AGO = 1_600_000_000


def png(value=0):
    """A grey image of 4 x 3 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def tar(path, members, settled=True):
    """An archive of files by their names; one that is settled has an index that is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members if isinstance(members, list) else members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if settled:
        os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def samples(numbers, classes=2, label=lambda n, classes: {"cls": str(n % classes).encode()}):
    """Samples of an image whose pixels are its number, and its label."""
    found = {}
    for n in numbers:
        found[f"{n:04}.png"] = png(n)
        found |= {f"{n:04}.{ending}": content for ending, content in label(n, classes).items()}
    return found


def in_json(n, classes):
    return {"json": json.dumps({"label": n % classes, "class_name": ["cat", "dog"][n % classes]}).encode()}


def values(source):
    """The numbers of a source's images, with their labels."""
    return [(int(source.image(i)[0, 0, 0]), int(source.labels[i])) for i in range(len(source))]


def parquet(path, numbers, names=("cat", "dog"), form="struct", group=4, columns=("image", "label"), **changes):
    """A Parquet file as the Hugging Face Hub has them."""
    import pyarrow as arrow
    from pyarrow import parquet as files

    images = [png(n) for n in numbers]
    labels = [n % 2 for n in numbers]
    if form == "struct":
        images = [{"bytes": image, "path": f"{n}.png"} for n, image in zip(numbers, images)]
    content = {"image": images, "label": arrow.array(labels, arrow.int64()), **changes}
    table = arrow.table({name: content[kind] for name, kind in zip(columns, ("image", "label"))})
    if names is not None:
        kinds = {"_type": "Image"}, {"_type": "ClassLabel", "names": list(names)}
        note = {"info": {"features": dict(zip(columns, kinds))}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(table, path, row_group_size=group)
    return path
