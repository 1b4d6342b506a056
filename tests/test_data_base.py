"""No simulation is in two splits; sets are checked with the place of what is wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gen.data.base import SPLITS, SimulationSet, region_of, split_by_simulation
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace

GRID = Grid((4, 4), 1.0, "deg", periodic=False)
SPACE = ParameterSpace(("Omega_m", "sigma_8"), (0.1, 0.6), (0.5, 1.0))


def make(n_simulations: int = 10, per: int = 3, seed: int = 0, **changes) -> SimulationSet:
    g = torch.Generator().manual_seed(seed)
    ids = torch.arange(n_simulations).repeat_interleave(per) * 7 + 3
    each = torch.rand(n_simulations, 2, generator=g) * 0.4 + torch.tensor([0.1, 0.6])
    columns = {
        "grid": GRID,
        "space": SPACE,
        "values": torch.randn(n_simulations * per, 1, 4, 4, generator=g),
        "params": each.repeat_interleave(per, dim=0),
        "simulation": ids,
        "split": split_by_simulation(ids, seed=seed),
        "region": np.full(n_simulations * per, "interior"),
        "name": "toy",
    }
    return SimulationSet(**(columns | changes))


def test_no_simulation_is_in_two_splits_whatever_order_repetition_and_seed() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        ids = rng.choice(rng.choice(10_000, size=40, replace=False), size=300)
        split = split_by_simulation(ids, seed=seed)
        holders = [set(ids[split == s].tolist()) for s in SPLITS]
        assert not holders[0] & holders[1] and not holders[0] & holders[2] and not holders[1] & holders[2]
        assert set().union(*holders) == set(ids.tolist()) and all(holders)


def test_a_simulation_keeps_its_split_when_rows_are_shuffled_or_dropped() -> None:
    ids = np.arange(20).repeat(4)
    split = dict(zip(ids.tolist(), split_by_simulation(ids, seed=5), strict=True))
    order = np.random.default_rng(1).permutation(80)[:60]
    assert set(ids[order]) == set(ids)
    assert [split[i] for i in ids[order].tolist()] == list(split_by_simulation(ids[order], seed=5))


@pytest.mark.parametrize(
    ("n", "fractions", "counts"),
    [
        (100, (0.8, 0.1, 0.1), [80, 10, 10]),
        (3, (0.8, 0.1, 0.1), [1, 1, 1]),
        (7, (0.8, 0.1, 0.1), [5, 1, 1]),
        (10, (0.5, 0.0, 0.5), [5, 0, 5]),
        (5, (0.0, 0.0, 1.0), [0, 0, 5]),
        (1, (1.0, 0.0, 0.0), [1, 0, 0]),
    ],
)
def test_shares_are_of_simulations_not_of_maps(n: int, fractions, counts: list[int]) -> None:
    ids = np.repeat(np.arange(n), np.arange(1, n + 1))  # simulation i has i + 1 maps
    split = split_by_simulation(ids, fractions)
    assert [len(set(ids[split == s])) for s in SPLITS] == counts


def test_the_seed_decides_who_is_held_out() -> None:
    ids = np.arange(50)
    draws = {tuple(ids[split_by_simulation(ids, seed=s) == "test"]) for s in range(20)}
    assert len(draws) > 15
    assert tuple(ids[split_by_simulation(ids, seed=3) == "test"]) in draws


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_by_simulation(np.arange(9), fractions)


def test_too_few_simulations_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"2 simulation\(s\) cannot fill 3 splits.*\[0, 0, 1\]"):
        split_by_simulation(np.array([4, 4, 4, 9]))


def test_select_returns_the_rows_that_match() -> None:
    data = make(region=np.array(["interior", "edge", "interior"] * 10))
    some = data.select(split="train", region="edge", simulations=[3, 10, 17, 24])
    expected = [
        i
        for i in range(len(data))
        if data.split[i] == "train"
        and data.region[i] == "edge"
        and int(data.simulation[i]) in (3, 10, 17, 24)
    ]
    assert expected and torch.equal(some.values, data.values[expected])
    assert torch.equal(some.params, data.params[expected]) and list(some.split) == ["train"] * len(expected)
    parts = [data.select(split=s) for s in SPLITS]
    assert (
        sum(map(len, parts)) == len(data) and sum(p.n_simulations for p in parts) == data.n_simulations == 10
    )


def test_fields_are_the_values_and_parameters_with_nothing_coarse() -> None:
    data = make()
    fields = data.fields()
    assert torch.equal(fields.values, data.values) and torch.equal(fields.params, data.params)
    assert fields.coarse.shape[1] == 0


def test_check_accepts_a_good_set_and_returns_it() -> None:
    data = make()
    assert data.check() is data


def spoil(data: SimulationSet, what: str) -> SimulationSet:
    values, params, split, region = (
        data.values.clone(),
        data.params.clone(),
        data.split.copy(),
        data.region.copy(),
    )
    match what:
        case "leak":
            row = int(np.flatnonzero(split == "train")[0])
            split[row] = "test"
        case "moved":
            params[4, 0] += 0.01
        case "nan":
            values[17, 0, 1, 2] = torch.nan
            values[17, 0, 3, 3] = torch.inf
        case "nan parameter":
            params[9, 1] = torch.nan
        case "split":
            split = np.where(split == "train", "training", split)
        case "region":
            region[0] = "centre"
        case "dtype":
            values = values.double()
        case "empty":
            return data.take(torch.zeros(0, dtype=torch.int64))
    return dataclasses.replace(data, values=values, params=params, split=split, region=region)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("leak", ["more than one split", "1 such"]),
        ("moved", ["simulation 10", "more than one set of parameters"]),
        ("nan", ["field 17", "2 values"]),
        ("nan parameter", ["field 9"]),
        ("split", ["training", "validation"]),
        ("region", ["centre", "extrapolation"]),
        ("dtype", ["float64"]),
        ("empty", ["no fields"]),
    ],
)
def test_check_refuses_with_the_place(what: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        spoil(make(), what).check()
    assert all(word in str(error.value) for word in ["toy", *words]), str(error.value)


COARSE = Grid((2, 2), 1.0, "deg", periodic=False)


def with_coarse(**changes) -> SimulationSet:
    coarse = torch.randn(30, 2, 2, 2, generator=torch.Generator().manual_seed(9))
    return make(**({"coarse": coarse, "coarse_grid": COARSE} | changes))


def test_coarse_fields_stay_with_their_fields() -> None:
    data = with_coarse().check()
    assert data.coarse is not None
    rows = data.rows(split="train", simulations=[3, 10, 24])
    some = data.select(split="train", simulations=[3, 10, 24])
    assert some.coarse is not None and some.coarse_grid == COARSE
    assert torch.equal(some.coarse, data.coarse[rows]) and torch.equal(some.fields().coarse, some.coarse)
    batch = data.fields(torch.tensor([7, 2]))
    assert torch.equal(batch.values, data.values[[7, 2]]) and torch.equal(batch.coarse, data.coarse[[7, 2]])
    assert torch.equal(batch.params, data.params[[7, 2]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coarse_grid": None}, "come together, got coarse alone"),
        ({"coarse": None}, "come together, got coarse_grid alone"),
        ({"coarse": torch.zeros(29, 2, 2, 2)}, "needs 30 rows like the values, got 29"),
        ({"coarse": torch.zeros(30, 2, 2, 3)}, r"\(N, Cc, 2, 2\), got \(30, 2, 2, 3\)"),
        ({"coarse": torch.zeros(30, 2, 2)}, r"\(N, Cc, 2, 2\), got \(30, 2, 2\)"),
        ({"coarse_grid": Grid((2, 2), 1.5, "deg", periodic=False)}, "the same box as the fields"),
        ({"coarse_grid": Grid((2, 2), 1.0, "Mpc/h", periodic=False)}, "the same box as the fields"),
        ({"coarse_grid": Grid((2, 2), 1.0, "deg", periodic=True)}, "the same box as the fields"),
    ],
)
def test_coarse_fields_that_do_not_fit_are_refused_at_once(changes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        with_coarse(**changes)


def test_check_looks_at_the_coarse_fields_too() -> None:
    bad = torch.zeros(30, 2, 2, 2)
    bad[21, 1, 0, 1] = torch.inf
    with pytest.raises(InputError, match="toy: coarse field 21 holds 1 values that are NaN or infinite"):
        with_coarse(coarse=bad).check()
    with pytest.raises(InputError, match=r"coarse must be .*float32, got .*float64"):
        with_coarse(coarse=torch.zeros(30, 2, 2, 2, dtype=torch.float64)).check()


def test_columns_of_unequal_length_or_shape_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="30 rows"):
        make(simulation=torch.arange(29))
    with pytest.raises(InputError, match=r"\(N, C, 4, 4\).*\(30, 4, 4\)"):
        make(values=torch.zeros(30, 4, 4))
    with pytest.raises(InputError, match=r"\(30, 2\) for Omega_m, sigma_8, got \(30, 3\)"):
        make(params=torch.zeros(30, 3))


def test_a_split_or_region_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="'valid'"):
        make().select(split="valid")
    with pytest.raises(InputError, match="'middle'"):
        make().select(region="middle")


def test_regions_follow_the_trained_range() -> None:
    params = torch.tensor([[0.3, 0.8], [0.47, 0.8], [0.3, 0.61], [0.3, 1.01], [0.5, 1.0]])
    assert list(region_of(SPACE, params)) == ["interior", "edge", "edge", "extrapolation", "edge"]
    assert list(region_of(ParameterSpace((), (), ()), torch.zeros(2, 0))) == ["interior"] * 2
