"""From an exported model and its predictions to a verdict: what will clients get from it?"""

import tempfile
from pathlib import Path

from components.artifacts import whole, write_whole
from components.check_serving.page import page
from components.check_serving.result import SERVING, Check, ServingResult
from components.check_serving.server import AnswerError, ServerError, starting
from components.errors import InputError
from components.golden import GoldenRows, read_golden
from components.model_spec import ModelSpec, read_spec
from components.settings import Serving


def check(model: str, predictions: str, settings: Serving, serving_result: str, report: str) -> ServingResult:
    """Asks a model's server what clients will, and writes down how it answers; the arguments are the component's.

    Raises:
        InputError: model or predictions are not what they should be.
    """
    spec = read_spec(Path(model))
    predicted = read_spec(Path(predictions))
    if predicted.weights_digest != spec.weights_digest:
        raise InputError(
            f"the predictions are of model {predicted.weights_digest[:12]}, the model to check is "
            f"{spec.weights_digest[:12]}; run predict_batch with this model"
        )
    result = _examined(Path(model), spec, read_golden(predictions, settings.golden.rows), settings)
    with whole(serving_result) as folder:
        (folder / SERVING).write_text(result.model_dump_json(indent=1), encoding="utf-8")
    write_whole(report, page(result))
    return result


def _examined(model: Path, spec: ModelSpec, rows: GoldenRows, settings: Serving) -> ServingResult:
    with tempfile.TemporaryDirectory() as folder, starting(model, Path(folder) / "server.log") as server:
        # KServe's client takes a second to import; the server starts meanwhile.
        from components.check_serving.examination import Examination

        examination = Examination(server, spec, rows, settings)
        try:
            examination.run()
        except (ServerError, AnswerError) as error:
            examination.checks.append(Check(name="the server", ok=False, detail=str(error)))
        failed = [one for one in examination.checks if not one.ok]
        return ServingResult(
            verdict="fail" if failed else "pass",
            reason="; ".join(f"{one.name}: {one.detail}" for one in failed[:3]) or examination.summary(),
            rows=len(rows.instances),
            checks=examination.checks,
            hostile=examination.hostile,
            figures=examination.figures,
            log=server.log() if failed else [],
        )
