"""deploy_model as a process of its own: `python deploying.py SETTINGS URI RUN PREDICTIONS FOLDER`."""

import json
import sys

from components.deploy_model.serving import serve
from components.settings import Deployment
from components.stage import stage

if __name__ == "__main__":
    settings, uri, run, predictions, folder = sys.argv[1:]
    with stage("deploy_model"):
        decided = serve(
            uri,
            predictions,
            "flights",
            Deployment.model_validate(json.loads(settings)),
            run,
            f"{folder}/decision",
            f"{folder}/report.html",
        )
        print(decided.model_dump_json())
