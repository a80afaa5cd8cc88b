"""Losses and balanced lambda: against numbers by hand, the equations as written, and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.countclip.losses import balanced_lambda, clip_loss, count_loss

PUBLISHED = {2: 1353, 3: 428, 4: 182, 5: 64, 6: 35, 7: 15, 8: 11, 9: 8, 10: 6}  # Fig. 2


def test_count_loss_by_hand():
    image = torch.tensor([[2.0, 0.0]])  # of any length: embeddings are normalised
    text, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[[0.0, 5.0]]])
    # similarities 1 and 0: -log(e / (e + 1))
    assert count_loss(image, text, other).item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    # against eight of similarity 0
    assert count_loss(image, text, other.expand(1, 8, 2)).item() == pytest.approx(math.log(1 + 8 / math.e), abs=1e-6)
    # the counterfactual is as near as the caption
    assert count_loss(image, text, text.unsqueeze(1)).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("k", [1, 8])
def test_count_loss_is_the_equation_as_written(k):
    rng = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 5, 16, generator=rng, dtype=torch.float64)
    others = torch.randn(5, k, 16, generator=rng, dtype=torch.float64)
    ei, et, ecf = (normalize(x, dim=-1) for x in (image, text, others))
    terms = []
    for i in range(5):
        right = torch.exp(ei[i] @ et[i])
        terms.append(torch.log(right / (right + sum(torch.exp(ei[i] @ ecf[i, j]) for j in range(k)))))
    assert count_loss(image, text, others).item() == pytest.approx(-sum(terms).item() / 5, abs=1e-12)


def test_weights_are_lambdas_of_pairs():
    rng = torch.Generator().manual_seed(1)
    image, text = torch.randn(2, 3, 8, generator=rng)
    others = torch.randn(3, 1, 8, generator=rng)
    each = torch.stack([count_loss(image[i : i + 1], text[i : i + 1], others[i : i + 1]) for i in range(3)])
    weights = torch.tensor([1.0, 0.0, 10.0])
    assert count_loss(image, text, others, weights).item() == pytest.approx((each * weights).mean().item(), abs=1e-6)
    assert count_loss(image, text, others, torch.ones(3)) == count_loss(image, text, others)


def test_a_batch_without_counting_pairs_has_no_counting_loss():
    image = torch.zeros(0, 8, requires_grad=True)
    loss = count_loss(image, torch.zeros(0, 8), torch.zeros(0, 8, 8))
    loss.backward()
    assert loss.item() == 0


def test_large_similarities_do_not_overflow():
    image = torch.ones(2, 4)
    loss = count_loss(image, -image, image.unsqueeze(1), logit_scale=1000.0)
    assert loss.item() == pytest.approx(2000, rel=1e-5)


def test_gradients():
    rng = torch.Generator().manual_seed(2)
    image, text = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    others = torch.randn(3, 8, 4, generator=rng, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (image, text, others)]
    assert torch.autograd.gradcheck(lambda *x: count_loss(*x, weights=torch.tensor([1.0, 2.0, 0.5])), inputs)
    assert torch.autograd.gradcheck(lambda a, b: clip_loss(a, b, 7.0), inputs[:2])


def test_a_step_down_the_gradient_brings_image_and_caption_together():
    rng = torch.Generator().manual_seed(3)
    image, text = torch.randn(2, 6, 16, generator=rng)
    others = torch.randn(6, 1, 16, generator=rng)
    moved = image.clone().requires_grad_()
    count_loss(moved, text, others).backward()
    after = image - moved.grad
    similarity = torch.nn.functional.cosine_similarity
    assert (similarity(after, text) > similarity(image, text)).all()
    assert (similarity(after, others[:, 0]) < similarity(image, others[:, 0])).all()


@pytest.mark.parametrize(
    ("text", "others", "weights"),
    [((4, 8), (3, 1, 8), None), ((3, 8), (3, 8), None), ((3, 8), (3, 1, 7), None), ((3, 8), (3, 1, 8), (1,))],
)
def test_shapes_that_do_not_fit_are_refused(text, others, weights):
    with pytest.raises(ValueError, match=r"are needed.*found"):
        count_loss(torch.ones(3, 8), torch.ones(text), torch.ones(others), weights and torch.ones(weights))


def test_clip_loss_by_hand():
    # two orthogonal pairs, scale 2: each row is (2, 0) with the first right: log(1 + e^-2), in both directions
    eye = torch.eye(2)
    assert clip_loss(eye, 3 * eye, 2.0).item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    assert clip_loss(eye, eye.flip(0), 2.0).item() == pytest.approx(math.log(1 + math.exp(2)), abs=1e-6)


def test_clip_loss_is_the_mean_of_both_directions():
    rng = torch.Generator().manual_seed(4)
    image, text = torch.randn(2, 5, 16, generator=rng, dtype=torch.float64)
    logits = 10 * normalize(image, dim=-1).numpy() @ normalize(text, dim=-1).numpy().T

    def rows(x: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(x).sum(axis=1)) - np.diag(x)))

    assert clip_loss(image, text, 10.0).item() == pytest.approx((rows(logits) + rows(logits.T)) / 2, abs=1e-12)


def test_lambda_one_norm_and_modal_by_hand():
    frequencies = {2: 60, 3: 30, 4: 10}
    assert balanced_lambda(frequencies, "one", 0.5) == {2: 0.5, 3: 0.5, 4: 0.5}
    assert balanced_lambda(frequencies, "norm") == pytest.approx({2: 0.4, 3: 0.7, 4: 0.9})
    assert balanced_lambda(frequencies, "modal") == pytest.approx({2: 1, 3: 2, 4: 6})


def test_the_modal_class_is_the_most_frequent_whatever_it_is():
    assert balanced_lambda({2: 10, 3: 40, 4: 20}, "modal") == pytest.approx({2: 4, 3: 1, 4: 2})


def test_lambda_log_by_hand():
    # n_total / n = 2, 4, 4: log2 of it 1, 2, 2; again 0, 1, 1; (s - 0) / 1 + 1
    assert balanced_lambda({2: 50, 3: 25, 4: 25}, "log", 3.0) == pytest.approx({2: 3, 3: 6, 4: 6})
    # 4/3, 4: log2 0.41504, 2; again -1.26869, 1: the rarest weighs 2.26869 + 1
    assert balanced_lambda({2: 3, 3: 1}, "log") == pytest.approx({2: 1, 3: 3.26869}, abs=1e-5)


def test_published_frequencies_weigh_rare_classes_more():
    total = sum(PUBLISHED.values())
    assert total == 2102
    assert balanced_lambda(PUBLISHED, "norm")[2] == pytest.approx(1 - 1353 / 2102)
    assert balanced_lambda(PUBLISHED, "modal")[10] == pytest.approx(1353 / 6)
    for scheme in ("norm", "modal", "log", "log_once"):
        weights = balanced_lambda(PUBLISHED, scheme)
        by_frequency = sorted(PUBLISHED, key=lambda n: PUBLISHED[n])
        assert sorted(weights.values(), reverse=True) == [weights[n] for n in by_frequency]
    log = balanced_lambda(PUBLISHED, "log")
    assert log[2] == 1
    sigma = {n: math.log2(math.log2(total / k)) for n, k in PUBLISHED.items()}
    assert log[10] == pytest.approx((sigma[10] - sigma[2]) / sigma[10] + 1)
    # one logarithm: log2 of 2102 / 1353 and of 2102 / 6 are 0.63561 and 8.45259
    assert balanced_lambda(PUBLISHED, "log_once")[10] == pytest.approx(1 + (8.45259 - 0.63561) / 8.45259, abs=1e-5)


def test_lambda_of_one_logarithm_by_hand():
    # n_total / n = 2, 4, 8, 8: log2 of it 1, 2, 3, 3; (s - 1) / 3 + 1
    weights = balanced_lambda({2: 40, 3: 20, 4: 10, 5: 10}, "log_once", 3.0)
    assert weights == pytest.approx({2: 3, 3: 4, 4: 5, 5: 5})
    assert balanced_lambda({2: 7}, "log_once") == {2: 1}


@pytest.mark.parametrize("scheme", ["one", "norm", "modal", "log", "log_once"])
def test_a_class_without_pairs_weighs_as_the_rarest(scheme):
    weights = balanced_lambda({2: 60, 3: 30, 4: 10, 5: 0}, scheme)
    assert weights[5] == weights[4]
    assert all(math.isfinite(weight) for weight in weights.values())


@pytest.mark.parametrize("frequencies", [{2: 10}, {2: 10, 3: 0}, {2: 5, 3: 5}])
def test_where_log_of_log_is_undefined_all_weigh_the_same(frequencies):
    assert set(balanced_lambda(frequencies, "log", 2.0).values()) == {2.0}


@pytest.mark.parametrize(
    ("frequencies", "scheme", "message"),
    [
        ({}, "one", "not all 0"),
        ({2: 0}, "log", "not all 0"),
        ({2: -1, 3: 2}, "norm", "0 or more"),
        ({2: 1}, "model", "'model'"),
    ],
)
def test_what_cannot_be_weighed_is_refused(frequencies, scheme, message):
    with pytest.raises(ValueError, match=message):
        balanced_lambda(frequencies, scheme)
