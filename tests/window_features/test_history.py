"""Window features of one event after another, against those of rows. Needs: the venv twin of the base image."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings

from components.settings import WindowFeatures
from components.window_features import history
from components.window_features.history import History
from tests.window_features.made import EVERY_KIND, by_arrays
from tests.window_features.test_arrays import EVENTS


class Stores:
    """A store a key, as JSON, so that nothing is shared."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}
        self.sizes: list[int] = []

    def of(self, key: str) -> "Keyed":
        return Keyed(self.texts.setdefault(key, {}), self.sizes)


class Keyed:
    def __init__(self, texts: dict[str, str], sizes: list[int]) -> None:
        self._texts, self._sizes = texts, sizes

    def get(self, key: Any, default: Any = None) -> Any:
        return json.loads(self._texts[str(key)]) if str(key) in self._texts else default

    def set(self, key: Any, value: Any) -> None:
        self._texts[str(key)] = json.dumps(value)
        self._sizes.append(len(self._texts[str(key)]))

    def delete(self, key: Any) -> None:
        del self._texts[str(key)]


def in_order(windows: WindowFeatures, events: list[dict[str, Any]], stores: Stores | None = None) -> list[Any]:
    """Computes features of events in the order in which they come, as the stream does."""
    keys = list(dict.fromkeys(tuple(windows.key_of(feature)) for feature in windows.features))
    histories = [(key, History(windows, key)) for key in keys]
    stores = stores or Stores()
    found = []
    for event in events:
        features: dict[str, Any] = {}
        for key, one in histories:
            parts = [event[name] for name in key]
            if event["time"] is None or None in parts:
                features |= dict(zip(one.names, one.missing(), strict=True))
                continue
            values = [finite(event[name], name) for name in one.columns]
            store = stores.of(json.dumps([key, parts]))
            features |= dict(zip(one.names, one.add(store, event["time"], values, event["time"]), strict=True))
        found.append({feature.name: features[feature.name] for feature in windows.features})
    return found


def finite(value: Any, name: str) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def by_time(event: dict[str, Any]) -> int:
    return -1 if event["time"] is None else int(event["time"])


@settings(deadline=None, max_examples=100)
@given(EVENTS)
def test_events_in_the_order_of_time_have_the_features_of_rows(events: list[dict[str, Any]]) -> None:
    events = sorted(events, key=by_time)
    assert bits(in_order(EVERY_KIND, events)) == bits(by_arrays(EVERY_KIND, events))


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_a_late_event_sees_what_was_before_it(events: list[dict[str, Any]]) -> None:
    events = [event | {"time": event["time"] or 0} for event in events]
    for came, event in enumerate(in_order(EVERY_KIND, events)):
        assert event == by_arrays(EVERY_KIND, events[: came + 1])[came]


def test_keys_with_many_events_keep_them_in_chunks_and_forget_the_old() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.integers(1, 400, 2000))
    late = rng.random(2000) < 0.05
    events = [
        {
            "time": int(time) - int(30_000 * is_late),
            "card": "a",
            "shop": 1,
            "amount": float(np.float32(rng.lognormal(3, 2))),
            "items": int(rng.integers(9)),
            "city": str(rng.integers(50)),
        }
        for time, is_late in zip(times, late, strict=True)
    ]
    short = EVERY_KIND.model_copy(update={"lateness": "30 seconds"})
    stores = Stores()
    found = in_order(short, events, stores)
    for came in (*range(0, 2000, 161), 1999):
        assert bits([found[came]]) == bits([by_arrays(short, events[: came + 1])[came]])
    assert max(stores.sizes) < 2 * history._CHUNK_EVENTS * 60
    kept = sum(
        len(json.loads(text)) for store in stores.texts.values() for name, text in store.items() if name != "index"
    )
    assert kept < 3 * 700  # of 2000 in three histories: 90 seconds are about 450


def bits(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spells numbers so that equal is equal in every bit."""
    return [
        {name: value.hex() if isinstance(value, float) else value for name, value in row.items()} for row in features
    ]
