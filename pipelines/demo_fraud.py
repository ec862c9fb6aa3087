"""`make demo-fraud`: decides three weeks of card payments one by one, shows the alerts, and draws what came of them.

Trains the model of examples/fraud where none is published, runs a Kafka broker on this machine, and makes events of
the payments that the model has not seen. They come faster than they did: the clock of the picture is theirs. An alert
is looked at within a day; a fraud that raised none is known when its report comes, days or weeks later.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from components.errors import InputError, LockgateError
from components.model_store import ModelStore
from pipelines import streaming
from pipelines.environments import ROOT
from pipelines.project import LoadedProject, load_project
from pipelines.stream_alerts import Truth

EXAMPLE = ROOT / "examples" / "fraud"
ALERT_HOURS = 24
"""After which somebody has looked at an alert."""
_REPORTS = "reports.parquet"


def main() -> int:
    """Decides, and gives an exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo_fraud", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=200, help="payments a second (default: 200)")
    parser.add_argument(
        "--events", type=int, default=20_000, help="payments in all (default: 20000, about three weeks)"
    )
    parser.add_argument("--port", type=int, default=8090, help="of /status and /metrics (default: 8090)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs")
    parser.add_argument("--picture", type=Path, help="SVG to write (default: demo-fraud.svg in the folder of the runs)")
    given = parser.parse_args()
    try:
        if given.rate <= 0 or given.events < 1:
            raise InputError("--rate and --events are more than 0")
        project = load_project(EXAMPLE)
        if code := _trained(project, given.runs):
            return code
        told = streaming.job(project)
        told["stream"]["servers"] = streaming.LOCAL
        split = streaming.split_of(told, given.runs)
        truth = truth_of_reports(EXAMPLE / "data" / _REPORTS, split)
        replay = streaming.Replay(given.rate, split, project.settings.task, given.events, truth)
        picture = given.picture or given.runs / "demo-fraud.svg"
        shown = streaming.Shown(streaming.budget_of(project.settings), picture)
        return streaming.run(told, given.port, "", replay, shown)
    except KeyboardInterrupt:
        return 130
    except LockgateError as error:
        print(f"demo-fraud: {error.label}: {error}", file=sys.stderr)
        return error.exit_code


def truth_of_reports(reports: Path, split: Path) -> Truth:
    """Reads when frauds were reported, and which payments may be replayed.

    Raises:
        InputError: the reports are not there.
    """
    if not reports.is_file():
        raise InputError(f"'{reports}' is missing; `make data PROJECT={EXAMPLE.relative_to(ROOT)}` writes it")
    table = pq.read_table(reports, columns=["transaction_id", "reported_at"])
    times = table["reported_at"].cast("timestamp[ms]").cast("int64").to_pylist()
    replayed = pq.read_table(split, columns=["transaction_id"])["transaction_id"].to_pylist()
    positive = dict(zip(table["transaction_id"].to_pylist(), times, strict=True))
    return Truth(positive, frozenset(replayed), ALERT_HOURS * 3_600_000)


def _trained(project: LoadedProject, runs: Path) -> int:
    """Publishes a model unless there is one, with what it was evaluated on; gives an exit code."""
    store = ModelStore(project.resolve(project.settings.publication.store), project.settings.name)
    version = store.latest()
    if version and (runs / store.card(version).run_name).is_dir():
        print(f"model    {version}, published before", flush=True)
        return 0
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "run", str(project.folder), "--runs", str(runs)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
