"""Patterns of fraud: incidents that take from the same shops, hours and amounts as honest payments do.

Most of their rows are ordinary one by one; what gives them away is what the same card, or merchant, did shortly before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .payments import drawn, gaps, moments, payments
from .world import (
    CASH,
    CHIP,
    CONTACTLESS,
    DAY,
    DAYS,
    DIGITAL,
    ELECTRONICS,
    HOUR,
    MINUTE,
    NAMES,
    SHOPPING,
    Array,
    Rows,
    World,
)


@dataclass(frozen=True)
class Pattern:
    """A kind of fraud."""

    name: str
    share: float
    """Of all fraudulent rows, about."""
    rows: float
    """Of an incident, on average."""
    days_to_report: float
    """Median of the time until the cardholder or the bank reports it."""
    make: Callable[[np.random.Generator, World, Array], Rows]
    """Takes the starts of the incidents, int [incidents]."""
    first_day: int = 0


def _card_testing(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Tries whether a stolen number works: small payments for digital goods, within minutes."""
    sizes = rng.integers(5, 12, len(starts))
    card, at = _incidents(rng, world, starts, sizes, 70)
    rows = payments(rng, world, card, at, np.full(len(at), DIGITAL), online=1.0)
    return rows | {"amount": rng.uniform(0.5, 9, len(at))}


def _stolen_card(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Pays with a stolen card in the shops of its city, until it is blocked: usual amounts, in a few hours."""
    sizes = rng.integers(4, 10, len(starts))
    card, at = _incidents(rng, world, _at_hours(rng, starts, 10, 20), sizes, 16 * MINUTE)
    category = rng.choice([*SHOPPING, NAMES.index("groceries"), NAMES.index("fuel")], len(at))
    rows = payments(rng, world, card, at, category, online=0.0)
    contactless = rng.random(len(at)) < 0.7  # without a PIN
    amount = np.where(contactless, np.minimum(rows["amount"], rng.uniform(25, 50, len(at))), rows["amount"] * 1.5)
    return rows | {"amount": amount, "channel": np.where(contactless, CONTACTLESS, CHIP)}


def _many_merchants(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Turns a card's limit into goods that can be sold: at many merchants online, within an hour."""
    sizes = rng.integers(6, 13, len(starts))
    card, at = _incidents(rng, world, starts, sizes, 6 * MINUTE)
    category = rng.choice([*SHOPPING, NAMES.index("travel")], len(at))
    return payments(rng, world, card, at, category, online=1.0)


def _merchant_taken_over(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Charges the cards that a merchant has on file: many cards, similar amounts, within an hour or two."""
    sizes = rng.integers(12, 24, len(starts))
    small = (world.popularity < np.quantile(world.popularity, 0.7)) & (world.shops != CASH)
    merchant = np.repeat(rng.choice(np.flatnonzero(small), len(starts)), sizes)
    card = rng.integers(0, len(world.city), len(merchant))
    at = np.repeat(starts, sizes) + gaps(rng, sizes, 4 * MINUTE)
    rows = payments(rng, world, card, at, world.shops[merchant], merchant=merchant, online=1.0)
    amount = np.repeat(rng.uniform(15, 60, len(starts)), sizes) * rng.uniform(0.9, 1.1, len(at))
    return rows | {"amount": amount}


def _account_taken_over(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Buys at night from far away: one to three payments, larger than the cardholder's."""
    sizes = rng.integers(1, 4, len(starts))
    card, at = _incidents(rng, world, _at_hours(rng, starts, 0, 6), sizes, 30 * MINUTE)
    category = rng.choice([ELECTRONICS, DIGITAL, NAMES.index("travel"), NAMES.index("fashion")], len(at))
    rows = payments(rng, world, card, at, category, online=1.0)
    far = np.repeat(rng.lognormal(np.log(900), 0.9, len(starts)), sizes)
    return rows | {"amount": rows["amount"] * rng.uniform(1, 3, len(at)), "distance": far}


def _contactless_relay(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Relays a card out of its owner's pocket: just below the contactless limit, a few times within minutes."""
    sizes = rng.integers(3, 7, len(starts))
    card, at = _incidents(rng, world, _at_hours(rng, starts, 7, 22), sizes, 3 * MINUTE)
    category = rng.choice([NAMES.index("groceries"), NAMES.index("transport"), NAMES.index("restaurants")], len(at))
    rows = payments(rng, world, card, at, category, online=0.0)
    return rows | {"amount": rng.uniform(30, 49.9, len(at)), "channel": np.full(len(at), CONTACTLESS)}


def _denied(rng: np.random.Generator, world: World, starts: Array) -> Rows:
    """Denies a payment that the cardholder made: nothing tells it from the others."""
    card = rng.integers(0, len(world.city), len(starts))
    category = drawn(rng, world.taste[card])
    at = starts // DAY * DAY + moments(rng, category, world.shift[card])
    return payments(rng, world, card, at, category)


PATTERNS: Sequence[Pattern] = (
    Pattern("card_testing", 0.22, 8.0, 9, _card_testing),
    Pattern("stolen_card", 0.22, 6.5, 1, _stolen_card),
    Pattern("many_merchants", 0.16, 9.0, 6, _many_merchants),
    Pattern("merchant_taken_over", 0.14, 17.5, 14, _merchant_taken_over),
    Pattern("account_taken_over", 0.12, 2.0, 4, _account_taken_over),
    Pattern("contactless_relay", 0.08, 4.5, 5, _contactless_relay, first_day=182),
    Pattern("denied", 0.06, 1.0, 21, _denied),
)
PATTERN_NAMES = tuple(one.name for one in PATTERNS)


def starts_of(rng: np.random.Generator, pattern: Pattern, wanted: float) -> Array:
    """Draws when the incidents of a pattern begin; those that begin later in the year make up for it."""
    count = max(2, round(wanted * pattern.share / pattern.rows))
    return np.sort(rng.integers(pattern.first_day * DAY, DAYS * DAY, count))


def _incidents(rng: np.random.Generator, world: World, starts: Array, sizes: Array, gap: float) -> tuple[Array, Array]:
    """Chooses a card an incident, and spreads its payments: card and at, each [rows]."""
    card = np.repeat(rng.integers(0, len(world.city), len(starts)), sizes)
    return card, np.repeat(starts, sizes) + gaps(rng, sizes, gap)


def _at_hours(rng: np.random.Generator, starts: Array, first: float, last: float) -> Array:
    return starts // DAY * DAY + (rng.uniform(first, last, len(starts)) * HOUR).astype(np.int64)
