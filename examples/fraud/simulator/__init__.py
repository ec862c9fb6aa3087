"""A year of card payments with fraud among them, simulated from one seed, with numpy alone.

What is simulated, and after whom, is told in README.md. The honest rows come first: who pays how often, when, where and
how much. Then each pattern of fraud adds its incidents, which take from the same shops, hours and amounts, so that
most of their rows are ordinary one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .frauds import PATTERN_NAMES, PATTERNS, starts_of
from .payments import everyday, purchases_in_games, sales, shopping_trips
from .world import CHANNELS, DAY, DAYS, NAMES, START, Array, Rows, World, make_world

__all__ = ["PATTERN_NAMES", "simulate"]


def simulate(cards: int = 1_000, seed: int = 17, fraud_share: float = 0.004) -> Rows:
    """Simulates a year.

    Args:
        cards: about 400 rows each.
        seed: the same gives the same rows, with one version of numpy.
        fraud_share: of all rows that are fraudulent.

    Returns:
        transaction_id, transaction_time, card_id, merchant_id, category, channel, amount, distance_km, fraud; and what
        is known later only: pattern (text, "" for none) and reported_at (NaT for none). By rising time.
    """
    rng = np.random.default_rng(seed)
    world = make_world(rng, cards)
    honest = [everyday(rng, world), shopping_trips(rng, world), purchases_in_games(rng, world), sales(rng, world)]
    rows = _joined(honest)
    pattern = np.full(len(rows["at"]), -1)
    wanted = len(pattern) * fraud_share / (1 - fraud_share)
    for number, one in enumerate(PATTERNS):
        found = one.make(rng, world, starts_of(rng, one, wanted))
        rows = _joined([rows, found])
        pattern = np.append(pattern, np.full(len(found["at"]), number))
    rows["pattern"] = pattern
    return _finished(rng, world, {name: values[rows["at"] < DAYS * DAY] for name, values in rows.items()})


def _joined(parts: Sequence[Mapping[str, Array]]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _finished(rng: np.random.Generator, world: World, rows: Rows) -> Rows:
    order = np.argsort(rows["at"], kind="stable")
    rows = {name: values[order] for name, values in rows.items()}
    time, fraud = START + rows["at"].astype("timedelta64[s]"), rows["pattern"] >= 0
    median = np.array([one.days_to_report for one in PATTERNS])[rows["pattern"]]
    days = np.minimum(median * np.exp(rng.normal(0, 0.8, len(time))), 90)
    reported = time + (days * DAY).astype("timedelta64[s]")
    # The number says nothing of a merchant's kind or city.
    number = rng.permutation(len(world.shops))
    return {
        "transaction_id": np.array([f"T{index:07d}" for index in range(1, len(time) + 1)]),
        "transaction_time": time,
        "card_id": _numbered("C", rows["card"]),
        "merchant_id": _numbered("M", number[rows["merchant"]]),
        "category": np.array(NAMES)[rows["category"]],
        "channel": np.array(CHANNELS)[rows["channel"]],
        "amount": np.maximum(rows["amount"], 0.5).round(2),
        "distance_km": rows["distance"].round(1),
        "fraud": fraud.astype(np.int64),
        "pattern": np.where(fraud, np.array([*PATTERN_NAMES, ""])[rows["pattern"]], ""),
        "reported_at": np.where(fraud, reported, np.datetime64("NaT")),
    }


def _numbered(letter: str, numbers: Array) -> Array:
    names = np.array([f"{letter}{number:05d}" for number in range(int(numbers.max(initial=0)) + 1)])
    return names[numbers]
