"""Weak slices: what is planted is found, and chance is not."""

from typing import Any

import numpy as np
import pytest

from components.explain_model.weak_slices import Search, find
from components.rows import MISSING_INTEGER, Arrays

ROWS = 4000


def rows(generator: np.random.Generator, count: int = ROWS) -> Arrays:
    price = generator.exponential(50, count).astype("float32")
    price[generator.random(count) < 0.1] = np.nan
    visits = generator.integers(0, 5, count)
    visits[generator.random(count) < 0.1] = MISSING_INTEGER
    return {
        "price": price,
        "age": generator.integers(18, 90, count),
        "visits": visits,
        "colour": generator.choice(np.array([b"", b"red", b"blue", b"green"], object), count),
        "id": np.array([b"%d" % n for n in range(count)], object),
        "nothing": np.full(count, np.nan, "float32"),
        "same": np.full(count, b"x", object),
    }


def search(arrays: Arrays, losses: np.ndarray[Any, Any], min_rows: int = 100) -> Search:
    return find(arrays, losses, losses, losses, min_rows, 3)


def test_chance_is_no_slice() -> None:
    reported = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        reported += len(search(rows(generator), generator.exponential(1, ROWS)).slices)
    assert reported == 0


def test_labels_that_are_noise_make_no_slice() -> None:
    generator = np.random.default_rng(8)
    arrays = rows(generator)
    truth = generator.random(ROWS) < 0.2
    assert not search(arrays, -np.log(np.where(truth, 0.2, 0.8))).slices


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (lambda a: a["colour"] == b"red", ["colour = red"]),
        (lambda a: a["colour"] == b"", ["colour = (missing)"]),
        (lambda a: np.isnan(a["price"]), ["price = (missing)"]),
        (lambda a: a["visits"] == MISSING_INTEGER, ["visits = (missing)"]),
        (lambda a: a["visits"] == 3, ["visits = 3"]),
        (lambda a: a["age"] >= 60, ["age ≥ 60"]),
        (lambda a: (a["age"] >= 40) & (a["age"] < 50), ["40 ≤ age < 50"]),
        (lambda a: (a["colour"] == b"red") & (a["visits"] == 2), ["visits = 2", "colour = red"]),
    ],
)
def test_what_is_planted_is_found(where: Any, says: list[str]) -> None:
    generator = np.random.default_rng(5)
    arrays = rows(generator)
    planted = where(arrays)
    losses = generator.exponential(1, ROWS) + 2 * planted
    found = search(arrays, losses)
    best = found.slices[0]
    assert best.conditions == says
    assert best.rows == planted.sum()
    assert best.low - 0.1 < 3 < best.high + 0.1
    assert best.rest == pytest.approx(losses[~planted].mean(), rel=0.1)
    assert best.predicted == losses[planted].mean()
    assert found.loss == losses.mean()


def test_a_cut_need_not_be_exact_to_find_two_terms() -> None:
    generator = np.random.default_rng(5)
    arrays = rows(generator)
    planted = (arrays["colour"] == b"red") & (arrays["age"] >= 60)
    best = search(arrays, generator.exponential(1, ROWS) + 2 * planted).slices[0]
    age, colour = best.conditions
    assert age.startswith("age ≥ ")
    assert colour == "colour = red"
    assert 55 <= int(age.split()[-1]) <= 75


def test_an_interval_covers_the_loss_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        arrays = rows(generator, 2000)
        best = search(arrays, generator.exponential(1, 2000) + 2 * (arrays["colour"] == b"red")).slices[0]
        covered += best.low < 3 < best.high
    assert covered >= 89


def test_slices_are_not_told_twice() -> None:
    generator = np.random.default_rng(5)
    arrays = rows(generator)
    arrays["colour too"] = arrays["colour"]
    found = search(arrays, generator.exponential(1, ROWS) + 2 * (arrays["colour"] == b"red"))
    assert [one.conditions for one in found.slices] == [["colour = red"]]


@pytest.mark.parametrize("count", [0, 1, 39])
def test_too_few_rows_are_not_searched(count: int) -> None:
    generator = np.random.default_rng(5)
    found = search(rows(generator, count), generator.exponential(1, count), 10)
    assert found.too_few
    assert not found.slices


def test_losses_that_are_all_the_same_make_no_slice() -> None:
    assert not search(rows(np.random.default_rng(5)), np.ones(ROWS)).slices
