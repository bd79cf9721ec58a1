"""For locust, beside bench/locustfile.py: a run ends when what ENOUGH names has been asked, which --run-time bounds.

ENOUGH is a JSON list of (method, name) as the statistics have them; AT_LEAST are the seconds that the run lasts anyway.
"""

import json
import os
from typing import Any

import gevent
from locust import events
from locust.runners import WorkerRunner


@events.init.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Watch from where all statistics come together."""
    if not isinstance(environment.runner, WorkerRunner):
        gevent.spawn(_watch, environment)


def _watch(environment: Any) -> None:
    wanted = {(method, name) for method, name in json.loads(os.environ["ENOUGH"])}
    gevent.sleep(float(os.environ["AT_LEAST"]))
    while not wanted <= {(entry.method, entry.name) for entry in environment.stats.entries.values()}:
        gevent.sleep(0.1)
    environment.runner.quit()
