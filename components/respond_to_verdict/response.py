"""What follows from a verdict: training on the window that follows, and messages."""

from dataclasses import dataclass
from pathlib import Path

from components.errors import InputError, LockgateError
from components.json_files import parse_record
from components.monitoring_history import history_of
from components.monitoring_record import MonitoringRecord
from components.monitoring_responses import Act, Responses
from components.respond_to_verdict.kubeflow import Kubeflow, Request
from components.respond_to_verdict.message import Message
from components.respond_to_verdict.receivers import send
from components.settings import AnyReceiver, Data, Event, Monitoring, Publication
from components.spans import pinned_window, resolve

RETRAIN = "retrain"
"""What the marker of a started training is called."""
LOCAL, KUBEFLOW = "local", "kubeflow"


@dataclass(frozen=True)
class Answer:
    """What was done."""

    run: str
    training_window: str
    reason: str


def respond(
    project: str, monitoring: Monitoring, data: Data, publication: Publication, record: str, retrain_on: str
) -> Answer:
    """Starts training or notifies, as the verdict asks for; each once for the same evidence.

    Everybody is told whom one failure does not concern; then it is raised.

    Args:
        project: its name.
        monitoring: section `monitoring`.
        data: section `data`.
        publication: section `publication`.
        record: directory with record.json.
        retrain_on: `local` or `kubeflow`.

    Raises:
        InputError: the configuration is wrong, or a receiver or the API refuses.
        DataRejectedError: there is nothing to train on.
        UnavailableError: a receiver, the API or a storage does not answer.
    """
    found = _read(record)
    history = history_of(monitoring.history, publication.store)
    responses = Responses(history, project, found.evidence)
    said: list[str] = []
    faults: list[LockgateError] = []
    for receiver in _receivers(monitoring, found.verdict):
        _tell(receiver, Message.of(found, found.verdict), responses, said, faults)
    answer = Answer("", "", "")
    if found.verdict == "retrain":
        try:
            answer = _retrain(project, monitoring, data, found, responses, retrain_on)
            said.append(answer.reason)
        except LockgateError as fault:
            faults.append(fault)
    if answer.run:
        for receiver in _receivers(monitoring, "started"):
            message = Message.of(found, "started", run=answer.run, training_window=answer.training_window)
            _tell(receiver, message, responses, said, faults)
    if faults:
        more = "; ".join(str(fault) for fault in faults[1:])
        raise type(faults[0])(f"{faults[0]}{f'; also: {more}' if more else ''}")
    reason = "; ".join(said) or f"nobody is to be told of verdict {found.verdict}"
    print(f"respond_to_verdict: {found.window}: {reason}", flush=True)
    return Answer(answer.run, answer.training_window, reason)


def training_window(data: Data, wanted: str, record: MonitoringRecord) -> str:
    """Gives the spans that training is to read: those of the window that ends with the judged one.

    Raises:
        InputError: the window does not move.
        DataRejectedError: a span is missing.
    """
    window = wanted or data.window
    if window != "all" and "last" not in window:
        raise InputError(
            f"data.window is '{window}': training would read the same as before; let it move by "
            "monitoring.response.window, e.g. 'last 9 months'"
        )
    return pinned_window(resolve(data.source, window, record.end))


def _retrain(
    project: str,
    monitoring: Monitoring,
    data: Data,
    record: MonitoringRecord,
    responses: Responses,
    retrain_on: str,
) -> Answer:
    response = monitoring.response
    if not response.retrain:
        return Answer("", "", "training is due, and starts by hand (monitoring.response.retrain is false)")
    if done := responses.done(RETRAIN):
        return Answer(done.result, done.detail, f"trained before on this evidence: run {done.result} on {done.detail}")
    window = training_window(data, response.window, record)
    if retrain_on == LOCAL:
        return Answer("", window, f"training is due on {window}")
    if retrain_on != KUBEFLOW:
        raise InputError(f"retrain_on is '{retrain_on}'; it is 'local' or 'kubeflow'")
    kubeflow = Kubeflow.of(response)
    request = Request(
        project=project,
        schedule=response.schedule or f"{project}-training",
        window=window,
        judged=record.window,
        evidence=record.evidence,
    )
    done, new = responses.once(
        RETRAIN, Act(lambda begin: kubeflow.start(request, begin), lambda: kubeflow.find(request))
    )
    did = "started" if new else "was started before:"
    return Answer(done.result, done.detail, f"training on {done.detail} {did} run {done.result}")


def _receivers(monitoring: Monitoring, event: str) -> list[tuple[str, AnyReceiver]]:
    """Lists who is told of an event, each with a name for the marker."""
    everybody = enumerate(monitoring.response.notify, 1)
    return [(f"{one.kind}-{number}", one) for number, one in everybody if event in one.events]


def _tell(
    receiver: tuple[str, AnyReceiver],
    message: Message,
    responses: Responses,
    said: list[str],
    faults: list[LockgateError],
) -> None:
    name, settings = receiver
    event: Event = message.event
    try:
        _, new = responses.once(f"{event}-{name}", Act(lambda _: (send(settings, message), "")))
        said.append(f"{settings.kind} was told{'' if new else ' before'}")
    except LockgateError as fault:
        faults.append(fault)


def _read(record: str) -> MonitoringRecord:
    path = Path(record, "record.json")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"'{path}' does not exist; give the output `record` of monitor_model") from error
    return parse_record(MonitoringRecord, content, path, "judge its window again")
