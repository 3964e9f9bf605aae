"""Numbers that make the large ones of the models small: everything else about them stays."""

NARROW = {"dims": (8, 12, 16, 24), "stem_channels": 6}
WIDE = {"depths": (2, 1, 1), "dims": (32, 48, 64)}
SHRUNK = {
    "vit_giant_patch14": {"dim": 88, "num_heads": 4, "depth": 2},
    "swin_large_meansparse": {"dim": 16, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "convnext_large_meansparse": {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 24)},
    "swin_large_mimir": {"dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},
    "wide_resnet28_10": WIDE,
    "wide_resnet28_10_swish": WIDE,
    "preact_resnet18": NARROW,
    "preact_resnet18_norm": NARROW,
    "preact_resnet18_swish": NARROW,
}
