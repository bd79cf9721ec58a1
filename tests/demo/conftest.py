"""The demo configures the event log of the process; a test gives it back."""

import logging

import pytest
import structlog

from fastgate.control import logging as event_log


@pytest.fixture
def own_event_log():
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    event_log.close()
    logging.captureWarnings(capture=False)
    root.handlers = before
    root.setLevel(level)
    structlog.reset_defaults()
