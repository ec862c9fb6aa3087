"""Honest payments: how often, when, for what, where and how much; some look like fraud."""

from __future__ import annotations

import numpy as np

from .world import (
    CASH,
    CASH_MACHINE,
    CATEGORIES,
    CHIP,
    CITIES,
    CONTACTLESS,
    CONTACTLESS_LIMIT,
    DAY,
    DAYS,
    DIGITAL,
    HOUR,
    INFLATION,
    MINUTE,
    NAMES,
    ONLINE,
    ONLINE_GROWTH,
    PLACES_ABROAD,
    SHOPPING,
    Array,
    Rows,
    World,
)


def everyday(rng: np.random.Generator, world: World) -> Rows:
    """Lets cards pay as they are used to, by day of the week and season."""
    days = np.arange(DAYS)
    weekend = _is_weekend(days)
    season = 1 + 0.3 * np.exp(-(((days - 355) / 12) ** 2)) + 0.15 * _is_sale_week(days) - 0.1 * (days < 31)
    counts = rng.poisson(world.payments[:, None] * season)
    card, day = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    factor = np.where(weekend[:, None], [one.weekend for one in CATEGORIES], 1.0)
    factor[:, SHOPPING] *= np.where(_is_sale_week(days), 2.5, 1 + 0.6 * (days > 330))[:, None]
    factor[:, NAMES.index("travel")] *= 1 + np.exp(-(((days - 170) / 40) ** 2))
    category = drawn(rng, world.taste[card] * factor[day])
    at = day * DAY + moments(rng, category, world.shift[card])
    return payments(rng, world, card, at, category)


def shopping_trips(rng: np.random.Generator, world: World) -> Rows:
    """Adds afternoons in many shops, which look like a stolen card at first sight."""
    days = np.arange(DAYS)
    chance = 0.004 + 0.016 * _is_weekend(days) + 0.02 * _is_sale_week(days) + 0.015 * (days > 335)
    card, day = np.nonzero(rng.random((len(world.city), DAYS)) < chance)
    sizes = rng.integers(3, 7, len(card))
    at = np.repeat(day * DAY + (rng.uniform(10, 16, len(card)) * HOUR).astype(np.int64), sizes)
    category = rng.choice(SHOPPING, sizes.sum(), p=[0.6, 0.1, 0.3])
    return payments(rng, world, np.repeat(card, sizes), at + gaps(rng, sizes, 35 * MINUTE), category, online=0.0)


def purchases_in_games(rng: np.random.Generator, world: World) -> Rows:
    """Adds small payments one after another, which look like the testing of a card."""
    card, day = np.nonzero(rng.random((len(world.city), DAYS)) < 0.0025 * (world.taste[:, [DIGITAL]] / 0.08))
    sizes = rng.integers(2, 6, len(card))
    start = day * DAY + (rng.normal(20, 2.5, len(card)).clip(6, 23.5) * HOUR).astype(np.int64)
    category = np.full(sizes.sum(), DIGITAL)
    shop = _shop(rng, world, world.city[card], np.full(len(card), DIGITAL), np.full(len(card), True), card)
    at = np.repeat(start, sizes) + gaps(rng, sizes, 6 * MINUTE)
    return payments(rng, world, np.repeat(card, sizes), at, category, merchant=np.repeat(shop, sizes))


def sales(rng: np.random.Generator, world: World) -> Rows:
    """Adds hours in which many cards pay at one merchant, which look like a merchant that was taken over."""
    sizes = rng.integers(10, 25, max(1, len(world.city) // 30))
    shops = _merchants(rng, np.isin(world.shops, SHOPPING), world, len(sizes))
    start = rng.integers(0, DAYS, len(sizes)) * DAY + (rng.uniform(8, 20, len(sizes)) * HOUR).astype(np.int64)
    at = np.repeat(start, sizes) + rng.integers(0, 2 * HOUR, sizes.sum())
    merchant, card = np.repeat(shops, sizes), rng.integers(0, len(world.city), sizes.sum())
    return payments(rng, world, card, at, world.shops[merchant], merchant=merchant, online=1.0)


def payments(
    rng: np.random.Generator,
    world: World,
    card: Array,
    at: Array,
    category: Array,
    merchant: Array | None = None,
    online: float | None = None,
) -> Rows:
    """Fills in what a cardholder's payments have: channel, merchant, amount and distance.

    Args:
        rng: draws.
        world: who pays, and where.
        card: int [rows].
        at: int [rows], seconds.
        category: int [rows].
        merchant: int [rows]; None: as is usual for the card.
        online: share of online payments; None: as is usual for the category on that day.
    """
    day = np.minimum(at // DAY, DAYS - 1)
    usual = np.array([one.online for one in CATEGORIES])[category] * (1 + ONLINE_GROWTH * day / DAYS)
    is_online = rng.random(len(card)) < (usual if online is None else online)
    place = np.where(world.abroad[card, day] >= 0, world.abroad[card, day], world.city[card])
    if merchant is None:
        merchant = _shop(rng, world, place, category, is_online, card)
    is_online |= world.shop_city[merchant] < 0
    amount = _amounts(rng, category, day) * world.wealth[card]
    channel = _channels(rng, category, amount, is_online)
    return {
        "card": card,
        "at": at,
        "category": category,
        "channel": channel,
        "merchant": merchant,
        "amount": amount,
        "distance": _distances(rng, world, card, merchant, is_online, place),
    }


def _shop(
    rng: np.random.Generator, world: World, place: Array, category: Array, is_online: Array, card: Array
) -> Array:
    """Chooses merchants: in the place where the card is, or online; most payments go to the same few."""
    merchant = np.zeros(len(card), np.int64)
    usual = rng.random(len(card)) < 0.7
    for kind in range(len(NAMES)):
        for where in (-1, *range(CITIES + PLACES_ABROAD)):
            rows = np.flatnonzero((category == kind) & (is_online if where < 0 else ~is_online & (place == where)))
            if not len(rows):
                continue
            own = np.flatnonzero((world.shops == kind) & (where < 0 or world.shop_city == where))
            own = own if len(own) else np.flatnonzero(world.shops == kind)
            shares = np.cumsum(world.popularity[own])
            drawn = np.searchsorted(shares, rng.random(len(rows)) * shares[-1])
            # A card has three merchants of a kind to which it keeps coming back; a hash of both says which.
            habit = (card[rows] * 7919 + kind * 104_729 + rng.integers(0, 3, len(rows)) * 1_299_709) % 1_000_003
            kept = np.searchsorted(shares, habit / 1_000_003 * shares[-1])
            merchant[rows] = own[np.where(usual[rows], kept, drawn)]
    return merchant


def _merchants(rng: np.random.Generator, among: Array, world: World, count: int) -> Array:
    shops = np.flatnonzero(among)
    return rng.choice(shops, count, p=world.popularity[shops] / world.popularity[shops].sum())


def _amounts(rng: np.random.Generator, category: Array, day: Array) -> Array:
    price = np.array([one.price for one in CATEGORIES])[category]
    spread = np.array([one.spread for one in CATEGORIES])[category]
    result: Array = price * (1 + INFLATION * day / DAYS) * np.exp(rng.normal(0, 1, len(category)) * spread)
    return result


def _channels(rng: np.random.Generator, category: Array, amount: Array, is_online: Array) -> Array:
    at_counter = np.where((amount <= CONTACTLESS_LIMIT) & (rng.random(len(amount)) < 0.85), CONTACTLESS, CHIP)
    return np.where(is_online, ONLINE, np.where(category == CASH, CASH_MACHINE, at_counter))


def _distances(
    rng: np.random.Generator, world: World, card: Array, merchant: Array, is_online: Array, place: Array
) -> Array:
    """Gives km from the cardholder's home to the terminal, or to where the network address of the buyer is."""
    elsewhere = rng.random(len(card)) < 0.03  # a mobile network's gateway, or a private network
    gateway = world.places[rng.integers(0, len(world.places), len(card))]
    device = np.where((place == world.city[card])[:, None], world.home[card], world.places[place])
    device = np.where(elsewhere[:, None], gateway, device) + rng.normal(0, 3, (len(card), 2))
    where = np.where(is_online[:, None], device, world.shop_at[merchant])
    result: Array = np.hypot(*(where - world.home[card]).T)
    return result


def moments(rng: np.random.Generator, category: Array, shift: Array) -> Array:
    """Draws seconds of the day."""
    peaks = np.array([one.hours for one in CATEGORIES])[category, rng.integers(0, 2, len(category))]
    hours = peaks + rng.normal(0, 2.2, len(category)) + shift
    hours = np.where(rng.random(len(category)) < 0.03, rng.uniform(0, 24, len(category)), hours)
    result: Array = (hours % 24 * HOUR).astype(np.int64) % DAY
    return result


def _is_weekend(days: Array) -> Array:
    return np.isin(days % 7, (5, 6))  # the year begins on a Monday


def _is_sale_week(days: Array) -> Array:
    return (days >= 330) & (days < 337)  # Black Friday to Cyber Monday


def gaps(rng: np.random.Generator, sizes: Array, mean: float) -> Array:
    """Gives seconds since the first row of its group, with exponential gaps: int [sum of sizes]."""
    gaps = 1 + rng.exponential(mean, sizes.sum()).astype(np.int64)
    total = np.cumsum(gaps)
    first = np.cumsum(sizes) - sizes
    return total - np.repeat(total[first], sizes)


def drawn(rng: np.random.Generator, weights: Array) -> Array:
    """Draws one column a row: int [rows]."""
    shares = np.cumsum(weights, axis=1)
    return (rng.random(len(weights))[:, None] * shares[:, -1:] > shares[:, :-1]).sum(axis=1)
