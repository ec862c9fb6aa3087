"""`python -m pipelines trigger`: new data in a bucket starts retraining."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from components import images
from components.errors import InputError
from components.storage import reaching
from pipelines.kubeflow.options import (
    CompiledOption,
    Connect,
    JsonOption,
    ProjectArgument,
    SetOption,
    connected,
    err,
    out,
    print_json,
)
from pipelines.project import load_project
from pipelines.triggers import authentication, dispatch
from pipelines.triggers.decision import Decision
from pipelines.triggers.events import written_objects
from pipelines.triggers.trigger import Trigger

_STANDARD_INPUT = Path("-")


@connected
def trigger(
    api: Connect,
    project: ProjectArgument,
    event: Annotated[
        Path | None,
        typer.Option(
            help="A file with a storage's notification; - for standard input. Without: whatever is there counts.",
            show_default=False,
        ),
    ] = None,
    objects: Annotated[
        list[str] | None, typer.Option("--object", metavar="URI", help="What was written. Repeatable.")
    ] = None,
    serve: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Wait for notifications by HTTP.", show_default=False),
    ] = None,
    listen: Annotated[str, typer.Option(metavar="ADDRESS", help="With --serve: where.")] = "127.0.0.1",
    dispatch_to: Annotated[
        str,
        typer.Option(
            "--dispatch", metavar="OWNER/NAME", help="Start the workflow of this repository.", show_default=False
        ),
    ] = "",
    api_url: Annotated[str, typer.Option(help="With --dispatch: GitHub's API.")] = dispatch.API_URL,
    submit: Annotated[
        bool, typer.Option("--submit", help="Start a run on Kubeflow Pipelines, as `submit --once` does.")
    ] = False,
    compiled: CompiledOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be started; start nothing.")] = False,
    marker: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Only an object of this name counts, e.g. _SUCCESS: written last, when a span is whole.",
            show_default=False,
        ),
    ] = "",
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start retraining when a window of data is complete, once for the same data."""
    if bool(dispatch_to) + submit + dry_run != 1:
        raise InputError("what should be started? give one of --dispatch OWNER/NAME, --submit, --dry-run")
    if serve is not None and (event or objects):
        raise InputError("--serve waits for events; leave out --event and --object")
    loaded = load_project(project, overrides or [])

    def start(decision: Decision) -> str:
        if dispatch_to:
            payload = {"project": project.as_posix(), "window": decision.window, "key": decision.key}
            dispatch.dispatch(dispatch_to, payload, api_url)
            return f"told '{dispatch_to}' ({dispatch.EVENT}, key {decision.key})"
        if submit:
            return _submit(api, project, overrides or [], decision, compiled)
        return f"dry run: would train on {decision.window} (key {decision.key})"

    pulled = Trigger(loaded, start, marker)
    if serve is not None:
        _serve(pulled, listen, serve)
        return
    decision = pulled.pull(_written(event, objects or []))
    if as_json:
        print_json(vars(decision))
    else:
        out.print(f"{decision.action}: {decision.reason}", markup=False)


def _submit(api: Connect, project: Path, overrides: list[str], decision: Decision, compiled: Path | None) -> str:
    from pipelines.kubeflow.planning import Choice, plan

    choice = Choice("training", images.REGISTRY, "", compiled, True, "", "", "")
    planned = plan(project, [*overrides, f"data.window={decision.window}"], choice, {})
    if found := planned.find(api()):
        return f"run {found.id} on the same inputs is {found.state.lower()}"
    return f"started run {planned.start(api(), '', '', _log).id}"


def _written(event: Path | None, objects: list[str]) -> list[str] | None:
    if event is None:
        return objects or None
    if event == _STANDARD_INPUT:
        return [*objects, *written_objects(sys.stdin.buffer.read())]
    with reaching(str(event)):
        body = event.read_bytes()
    return [*objects, *written_objects(body)]


def _serve(pulled: Trigger, address: str, port: int) -> None:
    from pipelines.triggers.receiver import PATH, Receiver

    with Receiver(address, port, pulled, authentication.from_environment(), _log) as receiver:
        # A container is stopped by a signal that would otherwise not reach Python.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _log(f"waiting for events at http://{address}:{receiver.server_port}{PATH}")
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            _log("stopped")


def _log(line: str) -> None:
    # Names of objects are in it, which anybody may have chosen who may write to the bucket.
    err.print("".join(character if character.isprintable() else " " for character in line), markup=False)
