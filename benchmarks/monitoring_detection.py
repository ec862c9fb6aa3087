"""How often monitoring finds what is not there, and what is: simulated over a year of flights, whose seasons are real.

`.venvs/tfdv-compat/bin/python benchmarks/monitoring_detection.py [PART…] [LOG]` after `make data`, on a newer libc in
`.venvs/tensorflow`. With a LOG of June to December, as benchmarks/replay.py writes it, quality is simulated, too.

- no_change: of each month, half of the rows are the training data, and windows are drawn from the other half
- whole_days: the same, but halves and windows are of whole days, as traffic comes
- seasons: the next month is held against a month
- planted: a change of a stated size in windows of the first kind

All is judged by the stage's own functions with the default settings.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from components.monitor_model.features import compare  # noqa: E402
from components.monitor_model.findings import feature_suspicions  # noqa: E402
from components.monitor_model.observation import Labelled  # noqa: E402
from components.monitor_model.quality import Quality, loss  # noqa: E402
from components.profiles import Profile, ProfileBuilder, make_profile, profiled_columns  # noqa: E402
from components.schema import parse_schema  # noqa: E402
from components.settings import Monitoring, Task  # noqa: E402

DATA = ROOT / "examples/flights/data"
SCHEMA = parse_schema((ROOT / "examples/flights/schema.pbtxt").read_text(encoding="utf-8"))
LEFT_OUT = ("late", "flight_id", "scheduled_departure")
ROWS = (200, 1_000, 5_000)
WINDOWS = 20
"""A month and number of rows."""
MONITORING = Monitoring()
Change = Callable[[pa.Table, np.random.Generator], pa.Table]


def month(number: int) -> pa.Table:
    table = pq.read_table(DATA / f"flights-2013-{number:02d}.parquet")
    kept = [name for name in table.column_names if name not in LEFT_OUT]
    days = table["scheduled_departure"].cast(pa.timestamp("s"), safe=False).cast(pa.int64()).to_numpy() // 86_400
    return table.select(kept).append_column("day", pa.array(days))


@cache
def split_month(number: int, by_day: bool) -> tuple[Profile, pa.Table]:
    """Gives the profile of one half of a month, and the other half."""
    training, rest = halves(month(number), np.random.default_rng(number), by_day)
    return profile_of(training), rest


def profile_of(table: pa.Table) -> Profile:
    rows = table.select([name for name in table.column_names if name != "day"])
    return make_profile(rows, rows.to_batches(), profiled_columns(SCHEMA, rows.schema))


def found(window: pa.Table, training: Profile) -> set[tuple[str, str]]:
    builder = ProfileBuilder.like(training)
    for batch in window.combine_chunks().to_batches():
        builder.add(batch)
    facts = compare(
        *(builder.profile(), builder.unknown_values(), training, [], ""),
        min_rows=MONITORING.min_rows,
        error_rate=MONITORING.error_rate,
    )
    found = {(one.kind, one.subject) for one in feature_suspicions(facts, MONITORING)}
    tested = [one.skew.significant for one in facts.values() if one.skew]
    return found | ({("any significant", "")} if any(tested) else set())


def halves(table: pa.Table, generator: np.random.Generator, by_day: bool) -> tuple[pa.Table, pa.Table]:
    if by_day:
        days = np.unique(table["day"].to_numpy())
        chosen = generator.choice(days, len(days) // 2, replace=False)
        first = np.isin(table["day"].to_numpy(), chosen)
    else:
        first = generator.random(table.num_rows) < 0.5
    return table.filter(pa.array(first)), table.filter(pa.array(~first))


def windows(table: pa.Table, rows: int, generator: np.random.Generator, by_day: bool) -> Iterator[pa.Table]:
    for _ in range(WINDOWS):
        if by_day:
            days = generator.permutation(np.unique(table["day"].to_numpy()))
            order = np.concatenate([np.flatnonzero(table["day"].to_numpy() == day) for day in days])[:rows]
        else:
            order = generator.permutation(table.num_rows)[:rows]
        yield table.take(pa.array(order))


def without_change(by_day: bool) -> None:
    print(f"\n{'whole days' if by_day else 'no change'}: windows with a finding, and with a significant difference")
    for rows in ROWS:
        hits, significant, retrain, total = 0, 0, 0, 0
        for number in range(1, 13):
            generator = np.random.default_rng(number)
            profile, rest = split_month(number, by_day)
            for window in windows(rest, rows, generator, by_day):
                kinds = found(window, profile)
                significant += ("any significant", "") in kinds
                hits += bool(kinds - {("any significant", "")})
                retrain += ("data_skew", "") in kinds
                total += 1
        shares = f"significant {significant / total:.1%}, data_skew {retrain / total:.1%}"
        print(f"  {rows:>6,} rows: {hits} of {total} with a finding ({hits / total:.1%}); {shares}")


def seasons() -> None:
    print("\nseasons: features found in the month after, all rows")
    for number in range(1, 12):
        kinds = found(month(number + 1), profile_of(month(number))) - {("any significant", "")}
        named = ", ".join(sorted(f"{subject} ({kind})" for kind, subject in kinds)) or "none"
        print(f"  {number:02d} to {number + 1:02d}: {named}")


def shifted(column: str, deviations: float) -> Change:
    def change(table: pa.Table, _: np.random.Generator) -> pa.Table:
        values = table[column].to_numpy()
        moved = (values + deviations * np.nanstd(values)).astype(np.float32)
        return replaced(table, column, pa.array(moved, mask=np.isnan(moved)))

    return change


def with_new_value(column: str, share: float) -> Change:
    def change(table: pa.Table, generator: np.random.Generator) -> pa.Table:
        values = np.array(table[column].to_pylist(), object)
        values[generator.random(len(values)) < share] = "XXX"
        return replaced(table, column, pa.array(values, pa.string()))

    return change


def moved(column: str, share: float) -> Change:
    """Gives a share of the rows the most frequent value."""

    def change(table: pa.Table, generator: np.random.Generator) -> pa.Table:
        values = np.array(table[column].to_pylist(), object)
        names, counts = np.unique(values, return_counts=True)
        values[generator.random(len(values)) < share] = names[counts.argmax()]
        return replaced(table, column, pa.array(values, pa.string()))

    return change


def missing(column: str, share: float) -> Change:
    def change(table: pa.Table, generator: np.random.Generator) -> pa.Table:
        values = table[column].to_numpy().copy()
        values[generator.random(len(values)) < share] = np.nan
        return replaced(table, column, pa.array(values, mask=np.isnan(values)))

    return change


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


PLANTED: tuple[tuple[str, str, str, Callable[[float], Change], tuple[float, ...]], ...] = (
    ("skew", "temp", "shift by standard deviations", lambda x: shifted("temp", x), (0.25, 0.5, 0.75, 1.0, 1.5)),
    ("skew", "carrier", "share moved to one value", lambda x: moved("carrier", x), (0.1, 0.2, 0.3, 0.4)),
    ("new_values", "dest", "share of a new value", lambda x: with_new_value("dest", x), (0.01, 0.03, 0.05, 0.1)),
    ("missing", "temp", "share more missing", lambda x: missing("temp", x), (0.025, 0.06, 0.1, 0.2)),
)


def planted() -> None:
    print("\nplanted: share of windows in which it is found")
    for kind, column, says, make, sizes in PLANTED:
        print(f"  {kind} of {column}: {says}")
        for size in sizes:
            shares = []
            for rows in ROWS:
                hits, total = 0, 0
                for number in (1, 4, 7, 10):
                    generator = np.random.default_rng(number)
                    profile, rest = split_month(number, False)
                    for window in windows(rest, rows, generator, False):
                        hits += (kind, column) in found(make(size)(window, generator), profile)
                        total += 1
                shares.append(f"{rows:,} rows {hits / total:.0%}")
            print(f"    {size:g}: {', '.join(shares)}")


def quality(log: str) -> None:
    """Flips labels; the reference is the metric of the same month, as if the model had been evaluated there."""
    from components.monitoring_record import Estimate

    files = Path(log).rglob("*.parquet")
    scores = pa.concat_tables([pq.ParquetFile(f).read(columns=["flight_id", "probability"]) for f in files])
    print("\nquality: share of windows in which AUC is found worse by more than 0.02, by the share of labels flipped")
    task = Task(type="binary", label="late", positive=1)
    for flipped in (0.0, 0.05, 0.1, 0.2):
        shares = []
        for rows in ROWS:
            hits, total = 0, 0
            for number in range(6, 13):
                labels = pq.read_table(DATA / f"flights-2013-{number:02d}.parquet", columns=["flight_id", "late"])
                labels = labels.set_column(0, "flight_id", labels["flight_id"].cast(pa.string()))
                joined = labels.join(scores, "flight_id", join_type="inner")
                truth, answers = joined["late"].to_numpy(), joined["probability"].to_numpy()
                generator = np.random.default_rng(number)
                half = generator.random(len(truth)) < 0.5
                then = measured(task, truth[half], answers[half])
                reference = Estimate(value=then.value, low=then.low, high=then.high)
                rest = np.flatnonzero(~half)
                for _ in range(WINDOWS // 2):
                    chosen = generator.choice(rest, rows, replace=False)
                    own = truth[chosen].copy()
                    turned = generator.random(rows) < flipped
                    own[turned] = 1 - own[turned]
                    worse = loss(reference, measured(task, own, answers[chosen]), "auc")
                    hits += bool(worse and worse[1] > MONITORING.limits.quality)
                    total += 1
            shares.append(f"{rows:,} rows {hits / total:.0%}")
        print(f"  {flipped:.0%}: {', '.join(shares)}")


def measured(task: Task, truth: np.ndarray, scores: np.ndarray):  # type: ignore[no-untyped-def,type-arg]
    labelled = Labelled(
        truth.astype(np.float64), scores.astype(np.float32), np.full(len(truth), "", object), pa.table({})
    )
    made = Quality(labelled, task, ["0", "1"], 0.5, 0.5, MONITORING.bootstrap)
    return made.all_rows().metrics["auc"]


PARTS: dict[str, Callable[[], None]] = {
    "no_change": lambda: without_change(by_day=False),
    "whole_days": lambda: without_change(by_day=True),
    "seasons": seasons,
    "planted": planted,
}

if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name in PARTS] or list(PARTS)
    for name in names:
        PARTS[name]()
    for log in sys.argv[1:]:
        if log not in PARTS:
            quality(log)
