"""Resize and Upsample against ONNX Runtime."""

import numpy as np
import pytest

from tests.frontend.onnx_models import check, model, node, operators

NEAREST = [
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
    {"coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil"},
    {"coordinate_transformation_mode": "pytorch_half_pixel", "nearest_mode": "floor"},
]
LINEAR = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]


def resize(shape, scales=None, sizes=None, opset=13, **attributes):
    constants = {"scales": np.float32(scales)} if scales is not None else {"sizes": np.int64(sizes)}
    inputs = "x _ scales" if scales is not None else "x _ _ sizes"
    return model([node("Resize", inputs, **attributes)], {"x": shape}, constants=constants, opset=opset)


@pytest.mark.parametrize("options", NEAREST)
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 1.5, 0.6)])
def test_nearest(options, scales):
    check(resize((2, 3, 5, 7), scales, mode="nearest", **options))


@pytest.mark.parametrize("coordinates", LINEAR)
@pytest.mark.parametrize("target", [{"scales": (1, 1, 2, 2)}, {"scales": (1, 1, 0.7, 1.3)}, {"sizes": (2, 3, 9, 1)}])
def test_linear(coordinates, target):
    check(resize((2, 3, 5, 7), mode="linear", coordinate_transformation_mode=coordinates, **target))


def test_whole_ratios_are_one_operator():
    for mode in ("nearest", "linear"):
        assert operators(check(resize((1, 2, 4, 4), (1, 1, 2, 2), mode=mode))) == ["resize2d"]


def test_what_resize2d_cannot_do():
    check(resize((2, 3, 5, 7), (1, 1, 2, 1.5), mode="cubic"), rtol=1e-4)
    check(resize((2, 3, 5, 7), (1, 1, 0.5, 0.4), mode="linear", antialias=1, opset=18), rtol=1e-4)
    check(resize((2, 3, 8), (1, 1, 2), mode="linear"))
    check(resize((1, 2, 3, 4, 5), (1, 1, 2, 1, 2), mode="nearest"))
    check(
        resize(
            (2, 3, 5, 7), sizes=(10, 10), mode="nearest", axes=[2, 3], keep_aspect_ratio_policy="not_larger", opset=18
        )
    )


def test_upsample_and_resize_of_old_opsets():
    scales = np.float32([1, 1, 2, 2])
    check(model([node("Upsample", "x s", mode="nearest")], {"x": (1, 2, 3, 4)}, constants={"s": scales}, opset=9))
    check(model([node("Upsample", "x", mode="nearest", scales=[1.0, 1.0, 3.0, 2.0])], {"x": (1, 2, 3, 4)}, opset=8))
    check(model([node("Upsample", "x s", mode="linear")], {"x": (1, 2, 3, 4)}, constants={"s": scales}, opset=9))
    check(model([node("Resize", "x s", mode="linear")], {"x": (1, 2, 3, 4)}, constants={"s": scales}, opset=10))
