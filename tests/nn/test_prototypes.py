from __future__ import annotations

from functools import partial

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import nn
from torch.nn import functional

from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.nn import NearestPrototype, class_sums, prototype_logits


def fitted(metric: str = "euclidean") -> tuple[nn.Module, torch.Tensor]:
    model = NearestPrototype(nn.Linear(6, 5), metric=metric)
    x = torch.randn(20, 6)
    model.fit(x, torch.arange(20) % 4)
    return model, torch.randn(7, 6)


PARTS = [("module", fitted), ("module", partial(fitted, metric="cosine"))]


def test_it_answers_as_the_nearest_centroid() -> None:
    torch.manual_seed(0)
    x, y, new = torch.randn(60, 8), torch.arange(60) % 5, torch.randn(40, 8)
    model = NearestPrototype(nn.Identity()).fit(x, y)
    expected = NearestCentroid().fit(x.numpy(), y.numpy())
    assert model(new).argmax(1).tolist() == expected.predict(new.numpy()).tolist()
    torch.testing.assert_close(model.prototypes, torch.from_numpy(expected.centroids_).float())


def test_nearness_is_its_formula() -> None:
    x, prototypes = torch.randn(4, 3), torch.randn(2, 3)
    for i in range(4):
        for j in range(2):
            near = prototype_logits(x, prototypes)[i, j]
            torch.testing.assert_close(near, -0.5 * ((x[i] - prototypes[j]) ** 2).sum())
            cosine = prototype_logits(x, prototypes, metric="cosine")[i, j]
            torch.testing.assert_close(cosine, functional.cosine_similarity(x[i], prototypes[j], dim=0))


def test_sums_let_gradients_through() -> None:
    x = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([0, 2, 2, 0, 2, 0])
    assert class_sums(x, labels, 4).counts.tolist() == [3, 0, 3, 0]
    torch.autograd.gradcheck(lambda z: class_sums(z, labels, 4).sums, x)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(LabelError, match="label 5 is out of range, expected 0 to 2"):
        class_sums(torch.zeros(2, 3), torch.tensor([0, 5]), 3)
    with pytest.raises(ShapeError, match="expected"):
        class_sums(torch.zeros(2, 3), torch.tensor([0]), 3)
    with pytest.raises(LabelError, match="class 1 has no example"):
        NearestPrototype(nn.Identity()).fit(torch.zeros(2, 3), torch.tensor([0, 2]))
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        prototype_logits(torch.zeros(1, 2), torch.zeros(1, 2), metric="cosin")
