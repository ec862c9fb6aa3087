"""Window features of a million rows, and the same by pandas: `.venvs/tensorflow/bin/python benchmarks/windows.py`."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.settings import WindowFeatures
from components.window_features.arrays import compute

WINDOWS = WindowFeatures.model_validate(
    {
        "time": "time",
        "key": ["card"],
        "features": [
            {"name": "count_1h", "of": "count", "window": "1 hour"},
            {"name": "sum_24h", "of": "sum", "column": "amount", "window": "24 hours"},
            {"name": "mean_7d", "of": "mean", "column": "amount", "window": "7 days"},
            {"name": "merchants_7d", "of": "distinct", "column": "merchant", "window": "7 days"},
            {"name": "since", "of": "time_since_last", "window": "7 days"},
        ],
    }
)


def main() -> None:
    """Prints seconds, and how far pandas' sums are from the exact ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cards", type=int, default=20_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    days = 90 * 86_400
    times = np.sort(rng.choice(days, options.rows, replace=options.rows > days)) * 1000 + 1_767_225_600_000
    cards = rng.integers(0, options.cards, options.rows)
    amounts = rng.lognormal(3, 1, options.rows).astype(np.float32)
    merchants = rng.integers(0, 2_000, options.rows)
    columns = {
        "card": pa.array(cards).cast(pa.string()).dictionary_encode(),
        "amount": pa.array(amounts),
        "merchant": pa.array(merchants),
    }
    ours, found = _timed(lambda: compute(WINDOWS, pa.array(times), columns))
    frame = pd.DataFrame({"time": pd.to_datetime(times, unit="ms"), "card": cards, "amount": amounts.astype(float)})
    theirs, by_pandas = _timed(lambda: _by_pandas(frame))
    print(f"{options.rows:,} rows of {options.cards:,} keys; load {os.getloadavg()[0]:.1f}")
    print(f"  compute, 5 features            {ours:6.2f} s")
    print(f"  pandas, 4 of them (no distinct) {theirs:5.2f} s")
    sums = found["sum_24h"].to_numpy().astype(float)
    alone = ~frame.duplicated(["card", "time"], keep=False).to_numpy()  # pandas counts those at the same instant
    off = (sums != by_pandas["sum_24h"].to_numpy().astype(np.float32)) & alone
    print(f"  sums that pandas has otherwise, as float32: {off.sum():,}")


def _by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    ordered = frame.sort_values(["card", "time"], kind="stable")
    groups = ordered.set_index("time").groupby("card")["amount"]
    found = pd.DataFrame(index=ordered.index)
    found["count_1h"] = groups.rolling("1h").count().to_numpy()
    found["sum_24h"] = groups.rolling("24h").sum().to_numpy()
    found["mean_7d"] = groups.rolling("7D").mean().to_numpy()
    found["since"] = ordered.groupby("card")["time"].diff().dt.total_seconds()
    return found.sort_index()


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
