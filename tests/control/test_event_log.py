"""The event log: structlog, logging and warnings in one stream of safe lines."""

import io
import json
import logging
import os
import select
import warnings

import pytest
import structlog

from fastgate.control import logging as event_log


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    root = logging.getLogger()
    before = root.level
    yield reader, writer
    event_log.close()
    logging.captureWarnings(capture=False)
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, event_log._Bridge)]
    root.setLevel(before)
    structlog.reset_defaults()
    os.close(reader)
    os.close(writer)


def written(reader: int) -> str:
    """Everything that was logged."""
    event_log.close(timeout=10)
    read = b""
    while select.select([reader], [], [], 0)[0] and (some := os.read(reader, 65536)):
        read += some
    return read.decode()


def test_an_event_as_json(pipe):
    reader, writer = pipe
    event_log.configure("json", writer)
    structlog.get_logger("x").info(
        "configuration loaded", file="fastgate.yaml", routes=3, ratio=0.5, tls=True, none=None
    )
    event = json.loads(written(reader))
    assert list(event)[:3] == ["time", "level", "event"]
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "event": "configuration loaded",
        "file": "fastgate.yaml",
        "routes": 3,
        "ratio": 0.5,
        "tls": True,
    }


def test_an_event_on_a_console(pipe):
    """No colours where no person looks."""
    reader, writer = pipe
    event_log.configure("console", writer)
    structlog.get_logger().warning("upstream down", service="httpbin")
    line = written(reader)
    assert "upstream down" in line
    assert "service=httpbin" in line
    assert line.endswith("\n")
    assert "\x1b" not in line


def fail(local):
    raise ValueError("wrong\x1b")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_text_of_a_peer(pipe, format_):
    """T12: one event is one line, and nothing in it steers a terminal."""
    reader, writer = pipe
    event_log.configure(format_, writer)
    evil = "a\nb\x1b[31m\u202e\ud800"
    structlog.get_logger().warning(evil, detail=evil, nested={"k\n": [evil, ("x", evil)]}, raw=b"\n\x1b", big=2**70)
    line = written(reader)
    assert line.count("\n") == 1
    assert line[:-1].isprintable()


@pytest.mark.parametrize("format_", ["json", "console"])
def test_credentials(pipe, format_):
    """T12: whoever logs a credential by accident logs [redacted]."""
    reader, writer = pipe
    event_log.configure(format_, writer)
    secret = "s3cr3t-value"
    log = structlog.get_logger()
    log.info("a", token=secret, Authorization=secret, nested={"client_secret": secret, "deep": [{"cookie": secret}]})
    sentence = f"sent Bearer {secret} to the IdP"
    log.info(sentence)
    log.info("url", url=f"http://idp/x?access_token={secret}&b=1", header=f"Basic {secret}")
    log.error("failed", exc_info=ValueError(f"bad header: Authorization: Bearer {secret}"))
    logging.getLogger("aiohttp.client").warning("token=%s", secret)
    lines = written(reader)
    assert secret not in lines
    assert lines.count("[redacted]") == 9  # one for each place above


def test_an_exception_on_a_console(pipe):
    """Tracebacks keep their lines, and show no local variables."""
    reader, writer = pipe
    event_log.configure("console", writer)
    try:
        fail("only" + " here")
    except ValueError:
        structlog.get_logger().exception("failed")
    lines = written(reader)
    assert "Traceback (most recent call last):\n" in lines
    assert "ValueError: wrong\\x1b" in lines
    assert "only here" not in lines


def test_logging_and_warnings(pipe):
    """Libraries' records arrive as events with the name of their logger."""
    reader, writer = pipe
    event_log.configure("json", writer)
    logging.getLogger("aiohttp.server").error("Error handling %s", "request", exc_info=ValueError("x"))
    logging.getLogger("asyncio").debug("not this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    first, second = map(json.loads, written(reader).splitlines())
    assert (first["level"], first["event"], first["logger"]) == ("error", "Error handling request", "aiohttp.server")
    assert "ValueError: x" in first["exception"]
    assert second["logger"] == "py.warnings"
    assert "old thing" in second["event"]


def test_a_record_that_cannot_be_formatted(pipe):
    """A library's wrong format string costs its message, nothing else."""
    reader, writer = pipe
    event_log.configure("json", writer)
    (bridge,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, event_log._Bridge)]
    bridge.handle(logging.LogRecord("library", logging.WARNING, "file", 1, "%d", ("not a number",), None))
    event = json.loads(written(reader))
    assert (event["event"], event["logger"]) == ("log record could not be formatted", "library")


def test_a_level(pipe):
    reader, writer = pipe
    event_log.configure("json", writer, level=logging.WARNING)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in written(reader).splitlines()] == ["loud"]


def test_configured_twice(pipe):
    """The last configuration holds, and an event is written once."""
    reader, writer = pipe
    event_log.configure("console", writer)
    event_log.configure("json", writer)
    logging.getLogger("library").warning("once")
    assert json.loads(written(reader))["event"] == "once"


def test_a_stuck_stderr(pipe):
    """P8: an event never waits for its reader; what did not fit is counted."""
    _, writer = pipe
    log = event_log.configure("json", writer)
    while not log.dropped:
        structlog.get_logger().warning("x" * 1000)
    log.close(timeout=0.1)


def test_a_stream_without_a_descriptor():
    """Nothing to write to is no reason to fail."""
    log = event_log.EventLog(io.StringIO())
    log.info(b"lost\n")
    assert log.dropped == 1
    log.close()
