"""`python -m pipelines trigger`: new data in a bucket starts retraining."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from components.errors import InputError
from components.storage import reaching
from pipelines.project import LoadedProject, load_project
from pipelines.triggers import authentication, dispatch
from pipelines.triggers.decision import Decision
from pipelines.triggers.events import written_objects
from pipelines.triggers.trigger import Start, Trigger

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_STANDARD_INPUT = Path("-")


def trigger(
    project: Annotated[Path, typer.Argument(help="A pipeline.yaml, or the folder that holds one.", show_default=False)],
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
        int | None, typer.Option(metavar="PORT", help="Wait for notifications by HTTP.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="With --serve: the address to listen on.")] = "127.0.0.1",
    dispatch_to: Annotated[
        str,
        typer.Option(
            "--dispatch", metavar="OWNER/NAME", help="Start the workflow of this repository.", show_default=False
        ),
    ] = "",
    api_url: Annotated[str, typer.Option(help="With --dispatch: GitHub's API.")] = dispatch.API_URL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be started; start nothing.")] = False,
    marker: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Only an object of this name counts, e.g. _SUCCESS: written last, when a span is whole.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start retraining when a window of data is complete, once for the same data."""
    loaded = load_project(project)
    pulled = Trigger(loaded, _start(loaded, project, dispatch_to, api_url, dry_run), marker)
    if serve is not None:
        if event or objects:
            raise InputError("--serve waits for events; leave out --event and --object")
        _serve(pulled, host, serve)
        return
    decision = pulled.pull(_written(event, objects or []))
    if as_json:
        typer.echo(json.dumps(vars(decision), ensure_ascii=False))
    else:
        _out.print(f"{decision.action}: {decision.reason}", markup=False)


def _start(loaded: LoadedProject, project: Path, repository: str, api_url: str, dry_run: bool) -> Start:
    """Gives what the options say should be done when there is a reason.

    Raises:
        InputError: they say nothing, or too much.
    """
    if bool(repository) + dry_run != 1:
        raise InputError("what should be started? give one of --dispatch OWNER/NAME, --dry-run")
    if dry_run:
        return lambda decision: f"dry run: would train on {decision.window} (key {decision.key})"

    def start(decision: Decision) -> str:
        payload = {"project": project.as_posix(), "window": decision.window, "key": decision.key}
        dispatch.dispatch(repository, payload, api_url)
        return f"told '{repository}' ({dispatch.EVENT}, key {decision.key})"

    return start


def _written(event: Path | None, objects: list[str]) -> list[str] | None:
    if event is None:
        return objects or None
    if event == _STANDARD_INPUT:
        return [*objects, *written_objects(sys.stdin.buffer.read())]
    with reaching(str(event)):
        body = event.read_bytes()
    return [*objects, *written_objects(body)]


def _serve(pulled: Trigger, host: str, port: int) -> None:
    from pipelines.triggers.receiver import PATH, Receiver

    with Receiver(host, port, pulled, authentication.from_environment(), _log) as receiver:
        # A container is stopped by a signal that would otherwise not reach Python.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _log(f"waiting for events at http://{host}:{receiver.server_port}{PATH}")
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            _log("stopped")


def _log(line: str) -> None:
    _err.print(line, markup=False)
