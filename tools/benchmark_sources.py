"""Time and memory of opening large data sets: a folder of classes, WebDataset shards, Parquet files.

Small images are written to a folder, then each kind is opened twice, each time by a process of its own: the first makes
the index or the list, the second finds it kept. Then images are read at random. It tells the seconds of both, with the
CPU time, the memory of the process above what it had before, and what travels to worker processes: by pickle, and as
arrays that all of them look at together.

    python tools/benchmark_sources.py --images 100000
    python tools/benchmark_sources.py --images 1280000 --kinds folder --folder /data/tmp
"""

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import positive

CLASSES, SHARD, VARIANTS, READ = 1000, 5000, 50, 2000


def pictures():
    """Encoded images of 8 x 8 pixels."""
    from PIL import Image

    rng, found = np.random.default_rng(0), []
    for _ in range(VARIANTS):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def write_folder(root, images):
    contents = pictures()
    for label in range(CLASSES):
        folder = root / "train" / f"n{label:08}"
        folder.mkdir(parents=True)
        for number in range(label, images, CLASSES):
            (folder / f"n{label:08}_{number}.PNG").write_bytes(contents[number % VARIANTS])


def write_webdataset(root, images):
    contents = pictures()
    root.mkdir()
    for first in range(0, images, SHARD):
        with tarfile.open(root / f"train-{first // SHARD:04}.tar", "w") as archive:
            for number in range(first, min(first + SHARD, images)):
                label = str(number % CLASSES).encode()
                for ending, content in (("png", contents[number % VARIANTS]), ("cls", label)):
                    member = tarfile.TarInfo(f"{number:08}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_parquet(root, images):
    import pyarrow
    from pyarrow import parquet

    contents = pictures()
    root.mkdir()
    starts = range(0, images, SHARD)
    for place, first in enumerate(starts):
        numbers = range(first, min(first + SHARD, images))
        rows = [{"bytes": contents[number % VARIANTS], "path": f"{number}.png"} for number in numbers]
        labels = pyarrow.array([number % CLASSES for number in numbers], pyarrow.int64())
        table = pyarrow.table({"image": rows, "label": labels})
        path = root / f"train-{place:05}-of-{len(starts):05}.parquet"
        parquet.write_table(table, path, row_group_size=100, use_dictionary=False)


KINDS = {"folder": write_folder, "webdataset": write_webdataset, "parquet": write_parquet}


def memory():
    """MiB of this process at its highest, on Linux; elsewhere none is told."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def opened(root):
    """Opens a data set in this process and says what that took, as JSON."""
    from keras_robust.data.sources import source

    before = memory()
    started, cpu = time.perf_counter(), time.process_time()
    found = source(root, "train")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    held = memory() - before
    arrays = []
    pickled = len(pickle.dumps(found, protocol=5, buffer_callback=arrays.append))
    order = np.random.default_rng(0).integers(0, len(found), READ)
    cpu = time.process_time()
    for index in order:
        found.encoded(int(index))
    each = (time.process_time() - cpu) / READ
    sizes = {"memory": held, "pickle": pickled / 2**20, "shared": sum(array.raw().nbytes for array in arrays) / 2**20}
    print(json.dumps({"images": len(found), "seconds": seconds, "cpu": cpu_seconds, "read_ms": 1e3 * each, **sizes}))


def measured(root):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, "--opened", str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=100_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, help="where to write them (default: a temporary folder)")
    parser.add_argument("--opened", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        opened(options.opened)
        return
    columns = (
        "kind | images | first s (CPU) | second s (CPU) | first MiB | second MiB | pickled MiB | shared MiB | read ms"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        print(f"| {columns} |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        for kind in options.kinds:
            root = Path(made, kind)
            KINDS[kind](root, options.images)
            time.sleep(4)  # what was just written is not kept
            first, second = measured(root), measured(root)
            times = " | ".join(f"{each['seconds']:.2f} ({each['cpu']:.2f})" for each in (first, second))
            sizes = [first["memory"], second["memory"], second["pickle"], second["shared"]]
            shown = " | ".join(f"{size:.1f}" for size in sizes)
            print(f"| {kind} | {second['images']:,} | {times} | {shown} | {second['read_ms']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
