"""The statements of docs/pytorch.md on torch's features: each works, or is refused with the error on the page."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from support import works
from support.calls import EXPORTS_ONNX, NEW_TORCH

pytestmark = pytest.mark.landing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("feature", works.FEATURES, ids=lambda feature: feature.name)
def test_a_feature_works_or_is_refused_as_documented(feature: Any) -> None:
    for package in feature.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install "srcell[docs]"')
    if feature.name == "torch.export" and not NEW_TORCH:
        pytest.skip("torch 2.4 fixes the sizes of a program")
    if feature.name == "torch.func.vmap" and not NEW_TORCH:
        pytest.skip("torch 2.4 has no vmap of operators of lists")
    if feature.name == "torch.onnx.export" and not EXPORTS_ONNX:
        pytest.skip("torch.onnx.export takes a table from torch 2.6 on")
    assert works.outcome(feature) == feature.refused


def test_most_features_work() -> None:
    refused = [feature.name for feature in works.FEATURES if feature.refused]
    assert len(works.FEATURES) >= 24 and len(refused) <= 6
