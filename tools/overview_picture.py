"""Picture of the README, from the two models of a quickstart.

    keras-robust quickstart
    python tools/overview_picture.py runs/quickstart docs/images/overview.webp

Left: photographs of the bundled data, what an attack on the clean model makes of them, and the difference, amplified;
each with the answers of both models. Right: the accuracy of both at every radius on validation images, by the nearest
misclassified points that FMN and a search over the radius of APGD find.
"""

import argparse
import io
import os
import sys
from pathlib import Path

N_EXAMPLES = 100
RESOLUTION = 32
COLOURS = {"clean training": "#7d8a93", "adversarial training": "#00897b"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a quickstart, with clean.keras and robust.keras")
    parser.add_argument("out", type=Path, help="picture to write, .webp or .png")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    draw(options.run, options.out)
    return 0


def draw(run: Path, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot
    from PIL import Image

    import keras_robust as kr
    from keras_robust.data.visualization import most_visible

    files = {"clean training": run / "clean.keras", "adversarial training": run / "robust.keras"}
    models = {name: kr.export.load_model(path) for name, path in files.items()}
    val = kr.data.photo_crops("val")
    threat = kr.ThreatModel("Linf", 4 / 255)
    clean, robust = models.values()

    x, y = val.sample(N_EXAMPLES).arrays(RESOLUTION, crop_pct=1.0)
    x = x.astype("float32") / 255
    x_adv = kr.attacks.APGD(threat, n_iter=40, loss="dlr", returns="misclassified")(clean, x, y)
    answers = {
        (who, what): model.predict(images, verbose=0).argmax(axis=1)
        for who, model in (("clean", clean), ("robust", robust))
        for what, images in (("x", x), ("x_adv", x_adv))
    }
    # Those that tell the clean model's story: right at first, wrong under attack. The robust model's answers are shown
    # as they are.
    told = np.flatnonzero((answers["clean", "x"] == y) & (answers["clean", "x_adv"] != y))
    told = told[most_visible(x[told], y[told], 3)]

    figure = pyplot.figure(figsize=(10, 4.1), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    difference = kr.data.amplified_difference(x, x_adv)
    axes = left.subplots(3, 3)
    for row, i in enumerate(told):
        for column, image in enumerate((x[i], x_adv[i], difference[i])):
            axes[row, column].imshow(image, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
        for column, what in enumerate(("x", "x_adv")):
            said = [val.class_names[answers[who, what][i]].split("_")[0] for who in ("clean", "robust")]
            colours = [COLOURS["clean training"], COLOURS["adversarial training"]]
            for line, (name, colour) in enumerate(zip(said, colours)):
                wrong = answers[("clean", "robust")[line], what][i] != y[i]
                axes[row, column].text(
                    1.06, 0.7 - 0.35 * line, f"{'✗' if wrong else '✓'} {name}", color=colour, fontsize=9,
                    transform=axes[row, column].transAxes,
                )  # fmt: skip
    for column, title in enumerate(("photograph", "attacked, Linf 4/255", "difference, amplified")):
        axes[0, column].set_title(title, fontsize=9)

    ax = right.subplots()
    for name, model in models.items():
        apgd = kr.attacks.APGD(threat, n_iter=10, loss="margin", random_start=True, returns="misclassified")
        nearest = [kr.attacks.FMN("Linf", n_iter=50), kr.attacks.RadiusSearch(apgd, n_steps=7)]
        report = kr.evaluation.evaluate(
            model, val, [kr.ThreatModel("Linf", None)], [RESOLUTION], nearest, N_EXAMPLES, crop_pct=1.0
        )
        curve, radii = report.curve("Linf"), np.linspace(0, 16 / 255, 129)
        shares = [curve.at(radius) for radius in radii]
        low, high = np.array([share.interval for share in shares]).T * 100
        ax.fill_between(radii * 255, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        ax.plot(radii * 255, [share.value * 100 for share in shares], color=COLOURS[name], label=name)
        print(name, {f"{level}/255": str(curve.at(level / 255)) for level in (0, 1, 2, 4, 8, 16)})
    ax.axvline(4, color="#bbb", linewidth=1, linestyle=":")
    ax.set(xlim=(0, 16), ylim=(0, 100), xlabel="radius of the attack (Linf, grey levels of 255)", ylabel="accuracy, %")
    ax.legend(frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.open(buffer).convert("RGB").save(out, quality=85)
    print(out, f"{out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
