"""`make demo-loop`: plays flights month by month, and draws what the closed loop is worth.

Each month the model in production is served by the real server, which logs what it is asked; the month's labels
arrive; the window is judged; and where the verdict is `retrain`, a new model is trained, goes through every gate, and
is served in the next month. Beside it the first model is asked the same, as if nobody had watched.

Two things are made up. The clock: the server logs in a minute what stands for a month, so the logged times are set to
the flights' own. And the drift: from a month on (--drift-from) the timetable is mirrored within the day, so that
mornings have the delays that evenings had. Flights themselves drift too little for a year to need a new model.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.model_store import ModelStore
from components.monitoring_history import MonitoringHistory
from components.request_columns import TIME
from pipelines.environments import PREDICTOR, ROOT

EXAMPLE = ROOT / "examples" / "flights"
NAME, KEY, DEPARTURE, LABEL = "flights", "flight_id", "scheduled_departure", "late"
FIRST_MONTHS = 2
"""That the first model is trained on: one to learn from, one for evaluation."""
_FIRST_HOUR, _LAST_HOUR = 5, 24
"""Between which nearly all flights leave."""
_BATCH = 500
_SECONDS_TO_START = 120
_PICTURE = Path(__file__).with_name("demo_loop.svg.jinja")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Month:
    """How a month went."""

    name: str
    version: str
    """That was in production."""
    verdict: str
    reason: str
    with_loop: float
    """AUC of the model in production."""
    without_loop: float
    """AUC of the first model."""
    answer: str
    """What was done about it."""
    promoted: bool


def main() -> int:
    """Plays, and gives an exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo_loop", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "demo-loop", help="scratch; emptied first")
    parser.add_argument("--until", type=int, default=12, help="last month of 2013 that is played (3 to 12)")
    parser.add_argument("--rows", type=int, default=4000, help="flights drawn of each month")
    parser.add_argument(
        "--drift-from", type=int, default=6, help="month from which the timetable is mirrored; 0: never"
    )
    given = parser.parse_args()
    try:
        if not FIRST_MONTHS < given.until <= 12 or given.rows < 500:
            raise InputError("--until is 3 to 12, --rows 500 or more")
        loop = Loop(given.folder, given.rows, given.drift_from)
        loop.prepare()
        months = []
        for number in range(FIRST_MONTHS + 1, given.until + 1):
            months.append(loop.play(number))
            print(_line(months[-1]), flush=True)
        picture = given.folder / "loop.svg"
        picture.write_text(draw(months, given.drift_from), encoding="utf-8")
        last = months[-1]
        print(f"\nAUC in {last.name}: {last.with_loop:.3f} with the loop, {last.without_loop:.3f} without")
        print(f"picture  {picture}\nreports  {given.folder / 'runs'}")
    except LockgateError as error:
        print(f"demo-loop: {error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class Loop:
    """The year, in a folder of its own."""

    def __init__(self, folder: Path, rows: int, drift_from: int) -> None:
        """Touches nothing yet."""
        self._folder = folder.resolve()
        self._project = self._folder / "project"
        self._rows = rows
        self._drift_from = drift_from
        self._store = ModelStore(str(self._project / "models"), NAME)
        self._first = ""

    def prepare(self) -> None:
        """Writes the project, and trains the first model.

        Raises:
            InputError: the flights are not there.
        """
        if self._folder.exists():
            if not (self._project / "pipeline.yaml").is_file() and any(self._folder.iterdir()):
                raise InputError(f"'{self._folder}' holds something else; name a new --folder")
            shutil.rmtree(self._folder)
        (self._project / "data").mkdir(parents=True)
        shutil.copyfile(EXAMPLE / "schema.pbtxt", self._project / "schema.pbtxt")
        settings = YAML(typ="safe").load((EXAMPLE / "pipeline.yaml").read_text(encoding="utf-8"))
        with (self._project / "pipeline.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(_adapted(settings), file)
        for number in range(1, FIRST_MONTHS + 1):
            self._arrive(number)
        print(f"{_name(1)} to {_name(FIRST_MONTHS)}: training the first model", flush=True)
        self._command("run", expected=(0,))
        self._first = self._store.latest() or ""

    def play(self, number: int) -> Month:
        """Serves, logs, lets labels arrive, judges, and answers; gives how it went."""
        version = self._store.latest() or ""
        rows = self._arrive(number)
        raw = self._folder / "log-of-a-minute" / _name(number)
        scores = ask(self._folder_of(version), rows, raw)
        unwatched = scores if version == self._first else ask(self._folder_of(self._first), rows, None)
        set_clock(raw, self._project / "log", rows)
        code = self._command(
            "monitor", "--window", _name(number), "--respond", expected=(0, DataRejectedError.exit_code)
        )
        record = MonitoringHistory(str(self._project / "models" / "monitoring"), NAME).read(_name(number))
        if record is None:
            raise DataRejectedError(f"window {_name(number)} was not judged; see {self._folder / 'commands.log'}")
        latest = self._store.latest() or ""
        answer = f"{latest} promoted" if latest != version else "a gate stopped the new model" if code else ""
        labels = rows[LABEL].to_numpy()
        return Month(
            name=_name(number),
            version=version,
            verdict=record.verdict,
            reason=record.reason,
            with_loop=auc(scores, labels),
            without_loop=auc(unwatched, labels),
            answer=answer,
            promoted=latest != version,
        )

    def _arrive(self, number: int) -> pa.Table:
        """Draws a month's flights, and files them where training and monitoring find them with their labels."""
        file = f"flights-{_name(number)}.parquet"
        if not (EXAMPLE / "data" / file).is_file():
            raise InputError(f"'{EXAMPLE / 'data' / file}' is missing; `make data` writes it")
        table = pq.read_table(EXAMPLE / "data" / file)
        chosen = np.random.default_rng(number).permutation(len(table))[: self._rows]
        table = table.take(np.sort(chosen))
        if self._drift_from and number >= self._drift_from:
            table = mirrored(table)
        pq.write_table(table, self._project / "data" / file)
        return table

    def _folder_of(self, version: str) -> Path:
        return Path(self._store.uri_of(version))

    def _command(self, *arguments: str, expected: Sequence[int]) -> int:
        """Runs a command of Lockgate on the project."""
        verb, *options = arguments
        command = [sys.executable, "-W", "ignore", "-m", "pipelines", verb, str(self._project)]
        log = self._folder / "commands.log"
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                [*command, "--runs", str(self._folder / "runs"), *options],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                check=False,
            )
        if done.returncode not in expected:
            raise UnavailableError(f"`{verb} {' '.join(options)}` ended with {done.returncode}; see {log}")
        return done.returncode


def mirrored(table: pa.Table) -> pa.Table:
    """Gives flights whose timetable is mirrored within the day: who left at 6 leaves at 23."""
    departure = table["departure_minute"].to_numpy()
    turned = (_FIRST_HOUR + _LAST_HOUR) * 60 - departure
    # The few at night stay: mirrored, they would leave on another day.
    turned = np.where((turned >= 0) & (turned < 24 * 60), turned, departure)
    moved = turned - departure
    arrival = (table["arrival_minute"].to_numpy() + moved) % (24 * 60)
    times = table[DEPARTURE].to_numpy() + moved.astype("timedelta64[m]")
    changes = {"departure_minute": turned, "arrival_minute": arrival, DEPARTURE: times}
    for name, values in changes.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values).cast(field.type))
    return table


def ask(version: Path, rows: pa.Table, log: Path | None) -> Array:
    """Serves a model, asks it all rows, ends it, and gives its probabilities.

    Args:
        version: folder of the model.
        rows: to ask.
        log: folder for the server's log; None: none.
    """
    table = rows.drop_columns([LABEL])
    seconds = pc.cast(pc.divide(pc.cast(table[DEPARTURE].cast(pa.timestamp("us")), pa.int64()), 1_000_000), pa.int64())
    table = table.set_column(table.schema.get_field_index(DEPARTURE), DEPARTURE, seconds)
    port = _free_port()
    options = {"model-dir": version, "http-port": port, "grpc-port": 0, "drain-seconds": 0}
    options |= {"log-uri": log} if log else {}
    command = [str(PREDICTOR.executable), "-m", "components.predictor", *(f"--{k}={v}" for k, v in options.items())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    scores: list[float] = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(server, port)
            for batch in table.to_batches(_BATCH):
                answer = _post(port, f"/v1/models/{NAME}:predict", {"instances": batch.to_pylist()})
                scores += [one["probability"] for one in answer["predictions"]]
        finally:
            server.send_signal(signal.SIGTERM)
    return np.array(scores)


def set_clock(raw: Path, log: Path, rows: pa.Table) -> None:
    """Copies a log, as if each row had been asked an hour before its flight; a file a day."""
    moments = dict(zip(rows[KEY].to_pylist(), rows[DEPARTURE].to_pylist(), strict=True))
    logged = pa.concat_tables([pq.read_table(file) for file in sorted(raw.rglob("*.parquet"))])
    field = logged.schema.field(TIME)
    first, last = min(moments.values()), max(moments.values())
    times = [
        max(moments[key] - timedelta(hours=1), first.replace(day=1, hour=0, minute=0))
        for key in logged[KEY].to_pylist()
    ]
    times = [one.replace(tzinfo=UTC) for one in times]
    logged = logged.set_column(logged.schema.get_field_index(TIME), field, pa.array(times, field.type))
    days = np.array([f"{one:%Y-%m-%d}" for one in times])
    for day in sorted(set(days)):
        folder = log / day
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(logged.filter(pa.array(days == day)), folder / f"{first:%H%M%S}-{last:%H%M%S}.parquet")


def auc(scores: Array, labels: npt.NDArray[Any]) -> float:
    """Gives the area under the ROC curve: how often a late flight scores above one that is not, ties half."""
    negative = np.sort(scores[labels == 0])
    positive = scores[labels == 1]
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def draw(months: Sequence[Month], drift_from: int) -> str:
    """Draws quality over time, with and without the loop, as a self-contained SVG."""
    values = [value for month in months for value in (month.with_loop, month.without_loop)]
    low, high = min(values) - 0.03, max(values) + 0.03
    width, height, left, top = 720, 260, 56, 40
    step = (width - left - 120) / max(1, len(months) - 1)

    def point(index: int, value: float) -> tuple[float, float]:
        return round(left + index * step, 1), round(top + height * (high - value) / (high - low), 1)

    ticks = [
        value / 100 for value in range(int(low * 100), int(high * 100) + 1) if value % 5 == 0 and value / 100 >= low
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    drifted = [index for index, month in enumerate(months) if drift_from and int(month.name[-2:]) >= drift_from]
    return environment.from_string(_PICTURE.read_text(encoding="utf-8")).render(
        months=[(point(i, m.with_loop), point(i, m.without_loop), m) for i, m in enumerate(months)],
        ticks=[(point(0, tick)[1], f"{tick:.2f}") for tick in ticks],
        drift=round(point(drifted[0], low)[0] - step / 2, 1) if drifted else None,
        width=width,
        bottom=top + height,
        left=left,
        top=top,
    )


def _adapted(settings: dict[str, Any]) -> dict[str, Any]:
    """Gives the example's settings for months that move, few rows, and little time."""
    settings["data"] |= {
        "window": "last 2 months",
        "split": {"by": "time", "column": DEPARTURE, "eval_last": "1 month"},
    }
    del settings["tuning"]
    settings["model"] = {"kind": "boosted_trees", "trees": 60, "leaves": 15}
    settings["evaluation"] |= {
        "thresholds": [{"metric": "auc", "min": 0.55}],
        "slices": [["origin"]],
        "slice_thresholds": [],
        "bootstrap": {"resamples": 50},
    }
    settings["explanation"] = {"rows": 50}
    settings["monitoring"] = {
        "log": {"source": "log"},
        "window": "month",
        "bootstrap": {"resamples": 50},
        "response": {"retrain": True},
    }
    return settings


def _line(month: Month) -> str:
    reason = month.reason.partition(" (")[0]
    return (
        f"{month.name}  {month.version.partition('-')[0]}  {month.verdict:<8} AUC {month.with_loop:.3f}"
        f"  (first model: {month.without_loop:.3f})  {month.answer or reason}"
    )


def _name(number: int) -> str:
    return f"2013-{number:02d}"


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while server.poll() is None and time.monotonic() < end:
        try:
            with _opener().open(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise UnavailableError(f"the server did not start within {_SECONDS_TO_START} s; `make serve` says why")


def _post(port: int, path: str, body: Any) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
    try:
        with _opener().open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise InputError(f"the server answers {error.code}: {error.read().decode('utf-8', 'replace')[:300]}") from error


def _opener() -> urllib.request.OpenerDirector:
    # No proxy: it is a server on this machine.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
