"""Choosing the model to train."""

from pathlib import Path

from components.artifacts import whole
from components.errors import InputError
from components.settings import Task, Training, Tuning, wrong_kind
from components.tune_model.page import write_page
from components.tune_model.part import parse_part
from components.tune_model.records import Experiment, Leaderboard, TrialResult, metric_of

LEADERBOARD = "leaderboard.json"


def select(
    transformed: str,
    transform_graph: str,
    task: Task,
    tuning: Tuning,
    training: Training,
    user_module: str,
    studies: str,
    leaderboard: str,
    report: str,
    part: str = "",
) -> Leaderboard:
    """Chooses one of the candidates, or a model with other hyperparameters; the arguments are those of the component.

    Raises:
        InputError: the settings do not fit the task or each other, or no candidate could be fitted because of them.
        DataRejectedError: the rows cannot be learned from.
        UnavailableError: the storage of the studies does not answer.
    """
    share = parse_part(part, tuning, studies)
    experiment = Experiment(
        transformed=transformed,
        transform_graph=transform_graph,
        task=task,
        tuning=tuning if share.is_all else tuning.model_copy(update={"parallel": 1}),
        training=training,
        user_module=user_module,
    )
    for index, candidate in enumerate(tuning.candidates):
        if fault := wrong_kind(f"tuning.candidates[{index}].kind", candidate, task):
            raise InputError(fault)
    if share.is_all and len(tuning.candidates) == 1 and not tuning.trials:
        board, results = _the_only_one(experiment), list[TrialResult]()
    else:
        # It imports TensorFlow, which takes seconds.
        from components.tune_model.competition import compete

        board, results = compete(experiment, studies, share)
    print(f"tune_model: {board.why}", flush=True)
    with whole(leaderboard) as folder:
        (folder / LEADERBOARD).write_text(board.model_dump_json(indent=1), encoding="utf-8")
    write_page(Path(report), board, results, experiment)
    return board


def _the_only_one(experiment: Experiment) -> Leaderboard:
    (model,) = experiment.tuning.candidates
    return Leaderboard(
        metric=metric_of(experiment.tuning, experiment.task),
        rule=experiment.tuning.rule,
        model=model,
        why=f"{model.kind} is the only candidate: there is nothing to select, and no row was read",
    )
