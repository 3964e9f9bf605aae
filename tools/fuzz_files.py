"""Campaign of damaged files: every reader of the package is given files with flipped, cut, repeated and forged bytes.

Each case follows from `--seed`, its format and its number, so that one that fails can be run again by `--only`. A case
ends in one of:

- refused: an error in the words of the package, which names the file;
- nameless: such an error without the file's name;
- read: what was read is of the right form and finite (damage to pixels and weights cannot be seen);
- nonsense: what was read is of another form, or not finite;
- foreign: an exception of a library;
- slow, memory, crash: more than 10 seconds, 1 GiB more than before, or the end of the process.

    python tools/fuzz_files.py --cases 10000 --out fuzz_files.json
    python tools/fuzz_files.py --only torch 17
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import resource
import sys
import tarfile
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Tally

SECONDS, START_SECONDS, MEGABYTES = 10.0, 600.0, 1024
FORMATS: dict[str, "Format"] = {}
FINE = ("refused", "read")


@dataclass(frozen=True)
class Format:
    """A kind of file: its name, how a whole one is written, and what reads it and says whether that is sense."""

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], bool]


def images(count: int = 4, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def picture(form: str, mode: str = "RGB", **options: Any) -> Format:
    def write(path: Path) -> None:
        from PIL import Image

        Image.fromarray(images(side=48)[0]).convert(mode).save(path, form, **options)

    def read(path: Path) -> bool:
        from keras_robust.data.preprocessing import decode

        image = decode(path)
        return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3

    return Format(f"image.{form.lower()}", write, read)


def write_folder(folder: Path) -> None:
    from PIL import Image

    for part in ("train", "val"):
        for label, image in enumerate(images(6)):
            path = folder / part / "abc"[label % 3] / f"{label}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def archive(suffix: str, mode: Any) -> Format:
    def write(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path, mode) as file:
            write_folder(Path(folder))
            file.add(folder, "images")

    return Format(f"images.{suffix}", write, read_source)


def write_shard(path: Path) -> None:
    from PIL import Image

    with tarfile.open(path, "w") as file:
        for label, image in enumerate(images(6)):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            for ending, content in (("png", stream.getvalue()), ("json", b'{"label": %d}' % (label % 3))):
                member = tarfile.TarInfo(f"{label}.{ending}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))


def write_parquet(path: Path) -> None:
    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    streams = [io.BytesIO() for _ in range(6)]
    for stream, image in zip(streams, images(6)):
        Image.fromarray(image).save(stream, "PNG")
    rows = [{"bytes": stream.getvalue(), "path": None} for stream in streams]
    parquet.write_table(pyarrow.table({"image": rows, "label": [0, 1, 2, 0, 1, 2]}), path, row_group_size=2)


def write_index(path: Path) -> None:
    """A shard, and the index that is kept beside it."""
    from keras_robust.data import source

    shard = path.with_name("shard.tar")
    write_shard(shard)
    os.utime(shard, (1e9, 1e9))
    source(shard, None)


def read_indexed(path: Path) -> bool:
    """Whether what was damaged is read as it was: an index that cannot be read is made anew."""
    from keras_robust.data import source

    found = source(path.with_name("shard.tar"), None)
    same = all(np.array_equal(found.image(index), image) for index, image in enumerate(images(6)))
    return same and found.labels.tolist() == [0, 1, 2, 0, 1, 2]


def read_source(path: Path) -> bool:
    from keras_robust.data import source

    found = source(path, "train")
    sense = all(0 <= label < len(found.class_names) for label in found.labels)
    return sense and all(found.image(index).shape[2] == 3 for index in range(min(len(found), 6)))


def write_arrays(path: Path, save: Any) -> None:
    x, y = images(6), np.arange(6) % 3
    save(path, x_train=x, y_train=y, x_test=x, y_test=y, class_names=["ant", "bee", "cat"])


def small_model() -> Any:
    """A published architecture of few blocks, made once in a process."""
    if not _made:
        import dataclasses

        import keras_robust as kr
        from keras_robust.models import registry

        name = "convnext_atto"
        row = kr.models.architecture(name)
        registry.ARCHITECTURES[name] = dataclasses.replace(row, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
        model = kr.models.create(name, 3, 32)
        registry.ARCHITECTURES[name] = row
        _made.append(model)
    return _made[0]


_made: list[Any] = []


def finite(model: Any) -> bool:
    logits = np.asarray(model(np.float32(images(2, 32)) / 255))
    return logits.shape[0] == 2 and logits.ndim == 2 and bool(np.isfinite(logits).all())


def read_weights(path: Path) -> bool:
    """Whether weights are finite; what they answer may be anything, as damage to single numbers cannot be seen."""
    import keras_robust as kr

    kr.weights.load(small_model(), path)
    return all(np.isfinite(array).all() for array in small_model().get_weights())


def read_model(path: Path) -> bool:
    import keras_robust as kr

    return finite(kr.export.load_model(path))


def read_runtime(path: Path) -> bool:
    import keras_robust as kr

    return finite(kr.export.load_model(path, pixels="0..1"))


def write_torch(path: Path, legacy: bool = False) -> None:
    import torch

    import keras_robust as kr

    side = path.with_name("side.safetensors")
    kr.weights.save(small_model(), side)
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(side), "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    side.unlink()


def write_saved(path: Path) -> None:
    import keras_robust as kr

    kr.weights.save(small_model(), path)


def tiny_keras() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(h), name="tiny")


def write_runtime(path: Path, form: str) -> None:
    model = tiny_keras()
    model(np.zeros((1, 32, 32, 3), np.float32))
    model.export(path, format=form, verbose=False)


def write_checkpoint(path: Path) -> None:
    from keras_robust.recipes import checkpoints

    arrays = {"model/a": np.ones((8, 3), np.float32), "step": np.asarray(3), "seed": np.arange(2, dtype=np.uint32)}
    checkpoints.write(path, arrays, 3, {"epoch": 1, "history": [{"loss": 1.0}]})


def read_checkpoint(path: Path) -> bool:
    from keras_robust.recipes import checkpoints

    found = checkpoints.peek(path)
    arrays = checkpoints.read(path)
    return isinstance(found.step, int) and all(np.isfinite(array).all() for array in arrays.values())


def write_recipe(path: Path) -> None:
    from keras_robust.recipes.imagenet import recipe

    path.write_text(recipe("convnext_tiny_convstem").to_json())


def read_recipe(path: Path) -> bool:
    from keras_robust.recipes import Recipe

    Recipe.load(path)
    return True


def write_report(path: Path) -> None:
    """The report of a small evaluation, with its arrays beside it."""
    import keras

    import keras_robust as kr

    net = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    )
    out = path.parent / "whole"
    threats = [kr.ThreatModel("Linf", 4 / 255)]
    kr.evaluation.evaluate(
        net, kr.data.photo_crops("val"), threats, [32], "short", 8, out=out, batch_size=4, verbose=False
    )
    for name in ("per_image.npz", "gallery.npz", "report.json"):
        (path.parent / name).write_bytes((out / name).read_bytes())


def read_report(path: Path) -> bool:
    import keras_robust as kr

    found = kr.evaluation.Report.load(path.parent)
    kr.evaluation.table({"one": found})
    return all(0 <= cell.robust_accuracy <= cell.clean_accuracy <= 1 for cell in found.results)


def write_names(path: Path) -> None:
    path.write_text("".join(f"n{number:08}\tclass {number}\n" for number in range(20)), encoding="utf-8")


def read_names(path: Path) -> bool:
    from keras_robust.data.class_names import read_class_names

    names = read_class_names(path)
    return len({one for several in names for one in several}) > 0


def _tables() -> None:
    FORMATS.update(
        jpeg=picture("JPEG", quality=90),
        cmyk=picture("JPEG", "CMYK"),
        progressive=picture("JPEG", progressive=True),
        png=picture("PNG"),
        palette=picture("PNG", "P"),
        gif=picture("GIF", "P"),
        bmp=picture("BMP"),
        webp=picture("WEBP"),
        ppm=picture("PPM"),
        tiff=picture("TIFF"),
        tiff_deflate=picture("TIFF", compression="tiff_adobe_deflate"),
        tiff_lzw=picture("TIFF", "L", compression="tiff_lzw"),
        tiff_jpeg=picture("TIFF", compression="jpeg"),
        tar=archive("tar", "w"),
        tar_gz=archive("tar.gz", "w:gz"),
        tar_xz=archive("tar.xz", "w:xz"),
        shard=Format("images.tar", write_shard, read_source),
        parquet=Format("images.parquet", write_parquet, read_source),
        index=Format(".keras_robust-shards.npz", write_index, read_indexed),
        npz=Format("images.npz", lambda path: write_arrays(path, np.savez), read_source),
        npz_packed=Format("images.npz", lambda path: write_arrays(path, np.savez_compressed), read_source),
        safetensors=Format("weights.safetensors", write_saved, read_weights),
        torch=Format("weights.pt", write_torch, read_weights),
        torch_legacy=Format("weights.pth", lambda path: write_torch(path, legacy=True), read_weights),
        h5=Format("model.weights.h5", lambda path: small_model().save_weights(path), read_weights),
        keras_weights=Format("weights.keras", lambda path: small_model().save(path), read_weights),
        keras=Format("model.keras", lambda path: tiny_keras().save(path), read_model),
        onnx=Format("model.onnx", lambda path: write_runtime(path, "onnx"), read_runtime),
        litert=Format("model.tflite", lambda path: write_runtime(path, "litert"), read_runtime),
        checkpoint=Format("step.safetensors", write_checkpoint, read_checkpoint),
        recipe=Format("recipe.json", write_recipe, read_recipe),
        report=Format("report.json", write_report, read_report),
        per_image=Format("per_image.npz", write_report, read_report),
        gallery=Format("gallery.npz", write_report, read_report),
        class_names=Format("names.tsv", write_names, read_names),
    )


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content after one to three kinds of damage."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        size = max(len(data), 1)
        # Headers and tables stand at the beginning and at the end.
        edge = min(size, 600)
        place = draw.choice((draw.randrange(size), draw.randrange(edge), size - 1 - draw.randrange(edge)))
        kind = draw.randrange(8)
        if kind == 0:
            for _ in range(draw.choice((1, 2, 8, 64))):
                at = min(len(data) - 1, max(0, place + draw.randrange(-200, 200)))
                if data:
                    data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            del data[place : place + draw.choice((1, 4, 100))]
        elif kind == 3:
            data[place : place + draw.choice((1, 16, 300))] = bytes(draw.choice((1, 16, 300)))
        elif kind == 4:
            data[place:place] = draw.randbytes(draw.choice((1, 4, 100)))
        elif kind == 5:
            # Sizes that lie.
            value = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, draw.randrange(2**32)))
            width = draw.choice((2, 4, 8))
            order = draw.choice(("little", "big"))
            data[place : place + width] = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 6:
            at = draw.randrange(size)
            data[place : place + 64] = data[at : at + 64]
        else:
            # In texts: other numbers, quotes and brackets.
            token = draw.choice((b"1e999", b"NaN", b"-1", b"null", b"[]", b"{}", b'"', b"}", b"99999999999", b"\xff"))
            data[place : place + len(token)] = token
    return bytes(data)


def run_case(name: str, number: int, seed: int, folder: Path, whole: bytes) -> tuple[str, str]:
    """Outcome and message of a case, in this process."""
    row = FORMATS[name]
    path = folder / row.file
    draw = random.Random(f"{seed}/{name}/{number}")
    path.write_bytes(damaged(whole, draw))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ("read" if row.read(path) else "nonsense"), ""
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if type(error) is not ValueError and not type(error).__module__.startswith("keras_robust."):
            where = traceback.extract_tb(error.__traceback__)[-1]
            return "foreign", f"{message} ({Path(where.filename).name}:{where.lineno})"
        return ("refused" if path.name in str(error) or path.parent.name in str(error) else "nameless"), message


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(connection: Connection, name: str, seed: int, folder: str) -> None:
    """A process that runs the cases that it is sent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with contextlib.redirect_stdout(io.StringIO()):
        _tables()
        row, where = FORMATS[name], Path(folder)
        try:
            row.write(where / row.file)
            whole = (where / row.file).read_bytes()
            if not row.read(where / row.file):
                raise ValueError("a whole file is read as nonsense")
        except Exception:
            connection.send(traceback.format_exc())
            return
        connection.send("")
        while (number := connection.recv()) is not None:
            before = peak_megabytes()
            outcome, message = run_case(name, number, seed, where, whole)
            grown = peak_megabytes() - before
            if grown > MEGABYTES:
                outcome, message = "memory", f"{grown:.0f} MiB; {outcome}: {message}"
            connection.send((outcome, message))


@contextlib.contextmanager
def worker(name: str, seed: int) -> Iterator[tuple[Any, Connection]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="fuzzed") as folder:
        process = context.Process(target=work, args=(theirs, name, seed, folder), daemon=True)
        process.start()
        theirs.close()
        try:
            if not ours.poll(START_SECONDS):
                raise RuntimeError(f"{name}: the worker does not start")
            if trouble := ours.recv():
                raise RuntimeError(f"{name}: whole files are not read: {trouble}")
            yield process, ours
        finally:
            process.kill()
            process.join()


def campaign(name: str, numbers: range, seed: int) -> dict[int, tuple[str, str]]:
    """Outcomes of the cases of a format by number; a process that ends or hangs is replaced."""
    found: dict[int, tuple[str, str]] = {}
    left = iter(numbers)
    while True:
        with worker(name, seed) as (process, connection):
            for number in left:
                connection.send(number)
                if not connection.poll(SECONDS):
                    found[number] = ("slow", f"more than {SECONDS:.0f} s")
                    break
                try:
                    found[number] = connection.recv()
                except EOFError:
                    process.join()
                    found[number] = ("crash", f"exit code {process.exitcode}")
                    break
            else:
                return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all, over the formats (default: 1000)")
    parser.add_argument("--formats", nargs="+", help="(default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs=2, metavar=("FORMAT", "NUMBER"), help="run one case and show its error")
    parser.add_argument("--out", type=Path, help="JSON of the counts and of every case that is not fine")
    options = parser.parse_args()
    _tables()
    if options.only:
        name, number = options.only[0], int(options.only[1])
        found = campaign(name, range(number, number + 1), options.seed)
        print(found[number])
        return 0
    names = options.formats or list(FORMATS)
    tally = Tally(FINE)
    for name in names:
        for number, (outcome, message) in campaign(name, range(-(-options.cases // len(names))), options.seed).items():
            tally.add(name, number, outcome, message)
        print(f"{name:20} {dict(tally.counts[name])}", flush=True)
    return tally.finish(options.out, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
