"""Judges one window of a served model: reads what was logged, joins labels, compares, and writes the record."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.artifacts import whole, write_whole
from components.errors import InputError
from components.model_store import ModelStore
from components.monitor_model.reference import Reference, References
from components.monitor_model.sections import Settings
from components.monitor_model.spool import Spool
from components.monitoring_history import MonitoringHistory, history_of
from components.monitoring_record import LogFacts, MonitoringRecord
from components.prediction_log.form import LogCounts, form_of
from components.prediction_log.labels import LabelTable, read_labels
from components.prediction_log.reader import LogReader
from components.prediction_log.windows import Window, parse_window, scheduled_window
from components.request_columns import REQUEST_ID
from components.storage import SCHEMES

if TYPE_CHECKING:
    from components.monitor_model.pushing import Pushgateway

RECORD = "record.json"
_LISTED = 20


def monitor(name: str, settings: Settings, window: str, scheduled: str, record: str, report: str) -> MonitoringRecord:
    """Judges a window, and keeps the record in the history; judged again, the record takes the earlier one's place.

    Args:
        name: of the project and its model.
        settings: sections of pipeline.yaml.
        window: what to judge, e.g. 2013-10; empty: the last whole period before `scheduled`, less the delay.
        scheduled: the time that the run was scheduled for, as RFC 3339 has it.
        record: directory to write: record.json.
        report: HTML file to write.

    Raises:
        InputError: the configuration is wrong, there is no log or no model, or a place may not be used.
        UnavailableError: a storage does not answer or is full.
    """
    period, delay = settings.monitoring.window, settings.monitoring.delay
    chosen = parse_window(window) if window else scheduled_window(_time(scheduled), period, delay)
    references = References(ModelStore(settings.publication.store, name))
    history = MonitoringHistory(history_of(settings.monitoring.history, settings.publication.store), name)
    before = history.before(chosen.start, chosen.seconds)
    earlier = history.read(chosen.file)
    gateway = _pushgateway(settings.monitoring.pushgateway)
    # TFDV takes seconds to import, so wrong input is refused before; and it writes about IPython to stderr.
    with contextlib.redirect_stderr(io.StringIO()):
        from components.monitor_model.judgement import Case, judge_window
    from components.monitor_model.page import page

    with contextlib.ExitStack() as stack:
        reference = references.get(references.served_at(chosen.end))
        spool, counts = _spooled(stack, settings, reference, chosen)
        most = _most_used(spool, references)
        if most and most != reference.version:
            reference = references.get(most)
            if dict(form_of(reference.spec, settings.data.key).features) != dict(spool.form.features):
                spool, counts = _spooled(stack, settings, reference, chosen)
        labels = _labels(settings, spool, chosen)
        case = Case(
            project=name,
            window=chosen,
            settings=settings,
            references=references,
            reference=reference,
            spool=spool,
            log=_log_facts(spool, counts, earlier),
            labels=labels,
            before=before,
        )
        result = judge_window(case)
    print(f"monitor_model: {chosen.name}: {result.verdict}: {result.reason}", flush=True)
    with whole(record) as folder:
        (folder / RECORD).write_text(result.model_dump_json(indent=1), encoding="utf-8")
    write_whole(report, page(result, before, reference.profile))
    history.write(chosen.file, result)
    if gateway:
        _push(gateway, history, result, settings)
    return result


def _pushgateway(url: str) -> "Pushgateway | None":
    """Reads the credentials of a Pushgateway before a window is judged; None: none is told."""
    if not url:
        return None
    from components.monitor_model.pushing import Pushgateway  # its client is not imported where none is told

    return Pushgateway(url)


def _push(gateway: "Pushgateway", history: MonitoringHistory, result: MonitoringRecord, settings: Settings) -> None:
    """Tells Prometheus of the window, unless a later one was judged, whose figures those there are."""
    if any(one.end > result.end for one in history.records()):
        print(f"monitor_model: {result.window} is not the newest window: its figures are not pushed", flush=True)
        return
    gateway.push(result, settings.monitoring)


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise InputError(f"the schedule's time '{text}' is no time; give a window, e.g. 2013-10") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _spooled(
    stack: contextlib.ExitStack, settings: Settings, reference: Reference, window: Window
) -> tuple[Spool, LogCounts]:
    """Reads the log into a file, in the form of a version's rows."""
    form = form_of(reference.spec, settings.data.key)
    reader = LogReader(settings.monitoring.log, form, window, settings.data.csv)
    spool = stack.enter_context(Spool(form))
    spool.fill(reader)
    return spool, reader.counts


def _most_used(spool: Spool, references: References) -> str:
    """Names the version that most rows are of, of those in the store; empty: none is known."""
    known = {version: rows for version, rows in spool.versions.items() if version in references}
    return max(known, key=lambda version: (known[version], version)) if known else ""


def _labels(settings: Settings, spool: Spool, window: Window) -> tuple[LabelTable, Sequence[str]] | None:
    """Reads the labels, and tells by which columns of the log they are found; None: they cannot be.

    What learns from no label is watched by its rows and its predictions alone.
    """
    if not spool.rows or settings.task.label is None or settings.task.is_unsupervised:
        return None
    wanted = settings.monitoring.labels
    columns = [REQUEST_ID] if wanted.by == "request_id" else settings.data.key
    source = wanted.source or settings.data.source
    if not columns or ("://" in source and source.partition("://")[0] not in SCHEMES):  # e.g. a topic: no files
        return None
    table = read_labels(
        source,
        window,
        wanted.later_spans,
        columns,
        settings.task.label,
        settings.data.csv,
    )
    return table, columns


def _log_facts(spool: Spool, counts: LogCounts, earlier: MonitoringRecord | None) -> LogFacts:
    return LogFacts(
        files=counts.files,
        unreadable=counts.unreadable[:_LISTED],
        unreadable_files=len(counts.unreadable),
        rows=spool.rows,
        duplicates=counts.duplicates,
        outside=counts.outside,
        without_time=counts.without_time,
        unanswered=counts.unanswered,
        malformed=counts.malformed,
        late=max(0, spool.rows - earlier.log.rows) if earlier else 0,
        unfit=_sorted(counts.unfit),
        unlogged=counts.unlogged,
        first=spool.first,
        last=spool.last,
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
