"""The access log against real pipes and devices."""

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from fastgate.control import sink
from fastgate.control.access_log import PEER_TEXT, AccessLog, console_line, json_line
from fastgate.model import Completion
from fastgate.stats import Stats

ROOT = Path(__file__).resolve().parents[2]

DONE = Completion(
    at=1_700_000_000.0429,
    seconds=0.0123456,
    peer="192.0.2.1",
    method="GET",
    host="api.example",
    path="/anything/1",
    status=200,
    outcome="forwarded",
    reason="",
    route="anything",
    service="httpbin",
    target="127.0.0.1:8080",
    upstream_seconds=0.01,
    received=5,
    sent=512,
)
REFUSED = DONE._replace(
    status=401, outcome="refused", reason="inactive", service="", target="", upstream_seconds=None, received=0
)
GONE = DONE._replace(status=0, outcome="client_gone", host="", route="", sent=0)


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with suppress(OSError):
            os.close(fd)


def lines(reader: int) -> list[bytes]:
    """Everything that is in the pipe now."""
    read = b""
    while select.select([reader], [], [], 0)[0] and (some := os.read(reader, 65536)):
        read += some
    return read.splitlines()


def test_a_forwarded_request_as_json():
    assert json.loads(json_line(DONE)) == {
        "time": "2023-11-14T22:13:20.042Z",
        "peer": "192.0.2.1",
        "method": "GET",
        "host": "api.example",
        "path": "/anything/1",
        "status": 200,
        "outcome": "forwarded",
        "route": "anything",
        "service": "httpbin",
        "target": "127.0.0.1:8080",
        "seconds": 0.012346,
        "upstream_seconds": 0.01,
        "received": 5,
        "sent": 512,
    }


def test_what_has_nothing_to_say():
    """No upstream, no octets, no status of a client that left: no key."""
    refused = json.loads(json_line(REFUSED))
    assert refused["reason"] == "inactive"
    assert not {"service", "target", "upstream_seconds", "received"} & refused.keys()
    gone = json.loads(json_line(GONE))
    assert not {"status", "host", "route", "sent", "reason"} & gone.keys()


def test_console_lines():
    assert console_line(DONE) == (
        b"2023-11-14T22:13:20.042Z 200 GET api.example/anything/1 forwarded 12.3ms"
        b" route=anything service=httpbin target=127.0.0.1:8080 upstream=10.0ms received=5 sent=512 peer=192.0.2.1\n"
    )
    assert b" --- GET /anything/1 client_gone " in console_line(GONE)


@pytest.mark.parametrize("render", [json_line, console_line])
@pytest.mark.parametrize(
    "text", ["/a\nb", "/a\r\nb", "/a\x1b[31m", "/a\x7f", "/a\x9b31m", "/a\u2028b", "/a\u202eb", "/a\ud800", "/a\x00"]
)
def test_control_characters_of_a_peer(render, text):
    """T12: no text of a peer ends a line, steers a terminal or stops the log."""
    for field in ("path", "host", "method"):
        line = render(DONE._replace(**{field: text})).decode()
        assert line.endswith("\n")
        assert line[:-1].isprintable()


def test_a_recorded_request_is_written(pipe):
    reader, writer = pipe
    log = AccessLog("json", writer, Stats())
    log.start()
    log.record(DONE)
    assert json.loads(os.read(reader, 65536))["path"] == "/anything/1"
    log.record(REFUSED)
    assert json.loads(os.read(reader, 65536))["status"] == 401
    log.close()


def test_closing_writes_what_is_queued(pipe):
    """More lines than one piece holds, in order, each whole."""
    reader, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats)
    for n in range(150):
        log.record(DONE._replace(sent=n + 1))
    log.start()
    log.close(timeout=10)
    assert [json.loads(line)["sent"] for line in lines(reader)] == list(range(1, 151))
    assert stats.access_log_dropped.total() == 0


def test_a_reader_that_never_reads(pipe):
    """P8: recording goes on, closing keeps its deadline, and every line is either whole in the pipe or counted."""
    reader, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats, capacity=100)
    log.start()
    recorded = 0
    # Each line is whole or not there at all until the pipe is full and the queue behind it is, too.
    while stats.access_log_dropped.total() < 1000:
        log.record(DONE)
        recorded += 1
    log.close(timeout=0.2)
    written = lines(reader)
    assert all(json.loads(line) for line in written)
    assert len(written) + stats.access_log_dropped.total() == recorded


def test_a_reader_that_reads_again(pipe):
    """P8: what is recorded after the sink is free again is written again."""
    reader, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats, capacity=100)
    log.start()
    while not stats.access_log_dropped.total():
        log.record(DONE)
    last = DONE._replace(path="/last")
    seen = b""
    while b'"/last"' not in seen:
        log.record(last)
        seen = os.read(reader, 65536)
    log.close()


def test_a_reader_that_left(pipe):
    """P8: EPIPE costs lines, not the process."""
    reader, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats)
    os.close(reader)
    log.start()
    for _ in range(100):
        log.record(DONE)
    log.close(timeout=10)
    assert stats.access_log_dropped.total() == 100


def test_a_full_disk():
    """P8: ENOSPC costs lines, not the process."""
    stats = Stats()
    with Path("/dev/full").open("wb") as full:
        log = AccessLog("json", full, stats)
    log.start()
    for _ in range(100):
        log.record(DONE)
    log.close(timeout=10)
    assert stats.access_log_dropped.total() == 100


def test_stdout_closed_at_start():
    """P8: with no stream nothing is written anywhere, least of all into the descriptor that took its number."""
    stats = Stats()
    log = AccessLog("json", None, stats)
    log.start()
    log.record(DONE)
    log.close()
    assert stats.access_log_dropped.total() == 1


def test_stdout_closed_later(tmp_path):
    """P8: the log keeps a descriptor of its own; the old number may be somebody's socket by now."""
    file = tmp_path / "access.log"
    stream = file.open("wb")
    log = AccessLog("json", stream, Stats())
    stream.close()
    log.start()
    log.record(DONE)
    log.close()
    assert file.read_bytes() == json_line(DONE)


def test_a_pipe_in_non_blocking_mode(pipe):
    """Another process that shares the pipe may have switched its mode; lines stay whole and counted."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    stats = Stats()
    log = AccessLog("json", writer, stats, capacity=100)
    log.start()
    recorded = 0
    while not stats.access_log_dropped.total():
        log.record(DONE)
        recorded += 1
    log.close(timeout=0.2)
    assert len(lines(reader)) + stats.access_log_dropped.total() == recorded


def test_after_closing(pipe):
    _, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats)
    log.start()
    log.close()
    log.close()
    log.record(DONE)
    assert stats.access_log_dropped.total() == 1


def test_a_line_that_cannot_be_rendered(pipe):
    """A broken line is counted; the ones after it are written."""
    reader, writer = pipe
    stats = Stats()
    log = AccessLog("json", writer, stats)
    log.record(DONE._replace(route="\ud800"))
    log.record(DONE)
    log.start()
    log.close(timeout=10)
    assert len(lines(reader)) == 1
    assert stats.access_log_dropped.total() == 1


def test_a_very_long_path(pipe):
    """What a peer sent is bounded, in the line and in the memory of the queue."""
    reader, writer = pipe
    log = AccessLog("json", writer, Stats())
    log.start()
    log.record(DONE._replace(path="/" + "a" * 60_000, host="h" * 60_000, method="M" * 60_000))
    log.close(timeout=10)
    (line,) = lines(reader)
    told = orjson.loads(line)
    assert len(told["path"]) + len(told["host"]) + len(told["method"]) <= PEER_TEXT
    assert told["path"].endswith("...")
    assert len(line) < select.PIPE_BUF


def test_a_process_whose_stdout_is_stuck():
    """P8: the process ends at its deadline although nobody reads."""
    program = """
import sys
from fastgate.control import sink
from fastgate.control.access_log import AccessLog
from fastgate.model import Completion
from fastgate.stats import Stats
stats = Stats()
log = AccessLog("json", sys.stdout, stats, capacity=1000)
log.start()
while not stats.access_log_dropped.total():
    log.record(Completion(0.0, 0.0, "", "GET", "", "/", 200, "forwarded", "", "", "", "", None, 0, 1))
log.close(timeout=0.1)
"""
    reader, writer = os.pipe()
    try:
        process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=writer, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert process.returncode == 0


def test_a_full_pipe_in_non_blocking_mode(pipe):
    """A write that finds no room after all is asked again, not lost."""
    _, writer = pipe
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    assert sink._write(writer, memoryview(b"line")) == 0
