"""Transforms invert, increase and carry gradients; their domains are refused with numbers."""

from __future__ import annotations

import math

import pytest
import torch

from gen.errors import InputError
from gen.transforms import Asinh, Chain, Identity, Log, Rational, Standardise, Transform, from_config


def positive(dtype: torch.dtype, n: int = 64) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, 2, 5, 5, generator=g, dtype=torch.float64).mul(1.5).exp().to(dtype)


def every() -> list[Transform]:
    chain = Chain([Log(0.5), Standardise(2)])
    x = positive(torch.float64)
    return [Identity(), Log(0.1), Asinh(2.0), Rational(4.0), Standardise(2).fit(x), chain.fit(x)]


each = pytest.mark.parametrize("transform", every(), ids=lambda t: type(t).__name__)
# Error of y is half an ulp; the inverse multiplies it by its slope: e^y < 100 here for the logarithm,
# (x + a)^2 / 2a < 3000 for the rational transform.
precision = pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 3e-4), (torch.float64, 1e-12)])


@each
@precision
def test_round_trip(transform: Transform, dtype: torch.dtype, rtol: float) -> None:
    x = positive(dtype)
    y = transform(x)
    assert y.dtype == x.dtype
    assert torch.allclose(transform.inverse(y), x, rtol=rtol, atol=1e-6 if dtype == torch.float32 else 1e-13)


@each
def test_strictly_increasing_per_channel(transform: Transform) -> None:
    x = positive(torch.float64).transpose(0, 1).flatten(1).sort(dim=1).values.unique(dim=1)
    y = transform(x.T[:, :, None, None])[:, :, 0, 0]
    assert (y.diff(dim=0)[x.T.diff(dim=0) > 0] > 0).all()


@each
@precision
def test_gradients_match_finite_differences_both_ways(
    transform: Transform, dtype: torch.dtype, rtol: float
) -> None:
    x = positive(torch.float64, 4)
    y = transform(x)
    for f, at in ((transform, x), (transform.inverse, y)):
        leaf = at.to(dtype).requires_grad_()
        (slope,) = torch.autograd.grad(f(leaf).sum(), leaf)
        h = 1e-6
        expected = (f(at + h) - f(at - h)) / (2 * h)
        assert slope.dtype == dtype
        assert torch.allclose(slope.double(), expected, rtol=max(rtol, 1e-6), atol=1e-8)


def test_values_of_the_formulae() -> None:
    x = torch.tensor([[[0.0, 4.0, 12.0]]], dtype=torch.float64)
    assert Rational(4.0)(x).tolist() == [[[-1.0, 0.0, 0.5]]]
    assert Log(1.0)(x)[0, 0, 1].item() == pytest.approx(math.log(5.0), rel=1e-15)
    assert Asinh(3.0)(x)[0, 0, 1].item() == pytest.approx(math.asinh(4 / 3), rel=1e-15)


def test_standardise_gives_zero_mean_and_unit_scatter_per_channel_of_the_training_values() -> None:
    x = positive(torch.float64) * torch.tensor([1.0, 7.0])[:, None, None]
    y = Standardise(2).fit(x)(x).transpose(0, 1).flatten(1)
    assert torch.allclose(y.mean(1), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(y.std(1), torch.ones(2, dtype=torch.float64), atol=1e-12)


def test_standardise_keeps_a_small_signal_on_a_large_mean() -> None:
    g = torch.Generator().manual_seed(0)
    x = (1e4 + torch.randn(64, 1, 8, 8, generator=g)).float()
    t = Standardise().fit(x)
    assert t.std.item() == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(t.inverse(t(x)), x, rtol=0, atol=2e-3)  # the ulp of 1e4 is 1e-3


def test_chain_is_composition_in_order_and_fits_each_part_to_its_own_input() -> None:
    x = positive(torch.float64)
    chain = Chain([Log(), Standardise(2)]).fit(x)
    assert torch.equal(chain(x), Standardise(2).fit(x.log())(x.log()))


def test_asinh_takes_its_scale_from_the_training_values_only_if_not_given() -> None:
    x = positive(torch.float64)
    assert Asinh().fit(x).scale.item() == pytest.approx(x.std().item())
    assert Asinh(2.0).fit(x).scale.item() == 2.0


@each
def test_state_and_config_rebuild_the_same_transform(transform: Transform) -> None:
    x = positive(torch.float64)
    twin = from_config(transform.to_config())
    twin.load_state_dict(transform.state_dict())
    assert torch.equal(twin(x), transform(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Log()(torch.tensor([1.0, 0.0, -3.0])), ["2 of 3", "lowest -3", "shift"]),
        (lambda: Log(1.0)(torch.tensor([math.nan, 2.0])), ["1 of 2"]),
        (lambda: Log().fit(torch.tensor([-1.0])), ["above 0"]),
        (lambda: Rational(4.0)(torch.tensor([-4.0, 1.0])), ["above -4", "1 of 2"]),
        (lambda: Rational(4.0).inverse(torch.tensor([1.0, 0.0])), ["1 of 2", "below 1"]),
        (lambda: Rational(-1.0), ["positive", "-1"]),
        (lambda: Asinh(0.0), ["positive", "0"]),
        (lambda: Asinh().fit(torch.ones(4, 1, 2, 2)), ["standard deviation 0"]),
        (lambda: Standardise().fit(torch.ones(4, 1, 2, 2)), ["standard deviation 0"]),
        (lambda: Standardise(2)(torch.ones(4, 3, 2, 2)), ["(B, 2, ...)", "(4, 3, 2, 2)"]),
        (lambda: from_config({"kind": "os.system"}), ["Rational", "os.system"]),
    ],
)
def test_domain_errors_say_the_numbers(call, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
