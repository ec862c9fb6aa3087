"""The KFP interface of `gate`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def gate(name: str, verdict: str, reason: str):
    """Fails the run with the reason when the verdict is not `pass`.

    Args:
        name: what is judged, e.g. `data` or `model`.
        verdict: of the stage before.
        reason: one line of the stage before.
    """
    from components.gate.verdict import require_pass
    from components.stage import stage

    with stage(f"{name} gate"):
        require_pass(verdict, reason)
