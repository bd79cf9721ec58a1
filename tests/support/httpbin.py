"""PyPI's httpbin, the upstream of the tutorial, under Werkzeug's threaded server in a process of its own."""

import sys

from tests.support.process import Process, answers, free_port

_SERVE = """
import sys, warnings
warnings.simplefilter("ignore")
from httpbin import app
from werkzeug.serving import WSGIRequestHandler, run_simple
WSGIRequestHandler.protocol_version = "HTTP/1.1"
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


class Httpbin:
    """A running httpbin."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = Process("httpbin", [sys.executable, "-c", _SERVE, str(self.port)])
        self.process.wait_until(lambda: answers(self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it; there is nothing to drain."""
        self.process.kill()
