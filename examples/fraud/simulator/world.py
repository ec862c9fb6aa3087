"""Who pays, and where: cards with homes, habits and holidays, and merchants in cities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = dict[str, Array]
"""By column, each [rows]: card, at (seconds since START), category, channel, merchant, amount, distance."""

START = np.datetime64("2024-01-01T00:00:00", "s")
DAYS = 366
DAY, HOUR, MINUTE = 86_400, 3_600, 60
CHANNELS = ("chip", "contactless", "online", "cash_machine")
CHIP, CONTACTLESS, ONLINE, CASH_MACHINE = range(4)
CONTACTLESS_LIMIT = 50.0
INFLATION = 0.06
"""Growth of prices over the year."""
ONLINE_GROWTH = 0.5
"""Growth of the online share of each category over the year."""
CITIES, PLACES_ABROAD = 12, 8
PAYMENTS_A_DAY = 1.0
"""Of a card, on average."""
ABROAD_KM, COUNTRY_KM, CITY_KM = 1500.0, 600.0, 8.0


@dataclass(frozen=True)
class Category:
    """What is bought."""

    name: str
    share: float
    """Of an average card's payments."""
    price: float
    """Median, EUR."""
    spread: float
    """Of the logarithm of the price."""
    online: float
    """Share of payments online on 1 January."""
    hours: tuple[float, ...]
    """Around which it is bought."""
    weekend: float = 1.0
    """Payments on Saturday and Sunday, against other days."""


CATEGORIES = (
    Category("groceries", 0.31, 24, 0.7, 0.04, (11, 17.5), 1.2),
    Category("restaurants", 0.17, 17, 0.6, 0.15, (12.5, 19.5), 1.3),
    Category("transport", 0.13, 6, 0.6, 0.25, (8, 17.5), 0.5),
    Category("fuel", 0.08, 48, 0.35, 0.0, (8, 18), 1.0),
    Category("fashion", 0.07, 42, 0.6, 0.35, (14, 18), 1.7),
    Category("electronics", 0.03, 85, 0.8, 0.45, (15, 20), 1.3),
    Category("home", 0.06, 40, 0.8, 0.25, (11, 16), 1.6),
    Category("digital_goods", 0.08, 7, 0.7, 1.0, (18, 21.5), 1.2),
    Category("travel", 0.02, 130, 0.8, 0.9, (12, 20.5), 1.0),
    Category("cash", 0.05, 60, 0.5, 0.0, (11, 17), 1.1),
)
NAMES = tuple(one.name for one in CATEGORIES)
SHOPPING = [NAMES.index(name) for name in ("fashion", "electronics", "home")]
DIGITAL, CASH, ELECTRONICS = (NAMES.index(name) for name in ("digital_goods", "cash", "electronics"))


@dataclass(frozen=True)
class World:
    """Who pays, and where."""

    home: Array
    """float [cards, 2], km."""
    city: Array
    """int [cards]."""
    wealth: Array
    """float [cards]: factor of prices."""
    payments: Array
    """float [cards]: a day."""
    taste: Array
    """float [cards, categories]: shares."""
    shift: Array
    """float [cards]: hours by which a card is later than others."""
    abroad: Array
    """int [cards, days]: place in which a card is; -1: at home."""
    places: Array
    """float [cities and places abroad, 2], km."""
    shops: Array
    """int [merchants]: category."""
    shop_city: Array
    """int [merchants]: place; -1: sells online only."""
    shop_at: Array
    """float [merchants, 2], km."""
    popularity: Array
    """float [merchants]."""


def make_world(rng: np.random.Generator, cards: int) -> World:
    """Draws cards and merchants."""
    merchants = max(200, cards * 3 // 4)
    inland = rng.uniform(0, COUNTRY_KM, (CITIES, 2))
    angles = rng.uniform(0, 2 * np.pi, PLACES_ABROAD)
    far = ABROAD_KM * rng.uniform(0.8, 2, PLACES_ABROAD)
    places = np.concatenate([inland, COUNTRY_KM / 2 + far[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)])
    sizes = 1 / np.arange(1, CITIES + 1)
    city = rng.choice(CITIES, cards, p=sizes / sizes.sum())
    shares = np.array([one.share for one in CATEGORIES])
    taste = rng.dirichlet(shares * 25, cards)
    # More merchants of what is bought often; each city has some of each kind, and a few sell online only.
    kinds = np.sqrt(shares) / np.sqrt(shares).sum()
    shops = np.concatenate([np.repeat(np.arange(len(NAMES)), CITIES), rng.choice(len(NAMES), merchants, p=kinds)])
    shop_city = np.concatenate(
        [np.tile(np.arange(CITIES), len(NAMES)), rng.choice(CITIES + PLACES_ABROAD, merchants, p=_crowds(sizes))]
    )
    online_only = (shops == DIGITAL) | (rng.random(len(shops)) < 0.5 * np.array([c.online for c in CATEGORIES])[shops])
    shop_city = np.where(online_only, -1, shop_city)
    return World(
        home=places[city] + rng.normal(0, CITY_KM, (cards, 2)),
        city=city,
        wealth=np.exp(rng.normal(0, 0.35, cards)),
        payments=PAYMENTS_A_DAY * rng.gamma(4, 0.25, cards),
        taste=taste,
        shift=rng.normal(0, 1, cards) + 4 * (rng.random(cards) < 0.08),
        abroad=_trips(rng, cards),
        places=places,
        shops=shops,
        shop_city=shop_city,
        shop_at=places[shop_city] + rng.normal(0, CITY_KM, (len(shops), 2)),
        popularity=rng.pareto(1.5, len(shops)) + 0.2,
    )


def _crowds(sizes: Array) -> Array:
    weights = np.append(sizes, np.full(PLACES_ABROAD, 0.08))
    result: Array = weights / weights.sum()
    return result


def _trips(rng: np.random.Generator, cards: int) -> Array:
    """Sends cards away, some in every week, most in summer: inland or abroad."""
    days = np.arange(DAYS)
    season = 1 + 3 * np.exp(-(((days - 205) / 30) ** 2)) + 1.5 * (days > 354)
    abroad = np.full((cards, DAYS), -1)
    for _ in range(3):
        first = rng.choice(DAYS, cards, p=season / season.sum())
        length, place = rng.integers(2, 14, cards), rng.integers(0, CITIES + PLACES_ABROAD, cards)
        away = (days >= first[:, None]) & (days < (first + length)[:, None]) & (rng.random(cards) < 0.6)[:, None]
        abroad = np.where(away, place[:, None], abroad)
    return abroad
