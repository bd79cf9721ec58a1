"""How long the loops of workers are busy with something else: `python -m bench.stubs.prober PORT ...`.

Every 10 ms one tiny request on each of four kept connections per port, for a path that no route knows: the worker
answers by itself. On SIGTERM it writes one line of JSON: the latencies' p50, p99 and maximum in milliseconds, and how
late this process itself was woken by the system meanwhile ("late": the machine's share). A connection that is lost is
made again; its first answer does not count, as it may have waited for a worker that was yet to come.
"""

import json
import selectors
import signal
import socket
import sys
import time

PERIOD = 0.01
REQUEST = b"GET /-/nowhere HTTP/1.1\r\nHost: prober\r\n\r\n"
CONNECTIONS = 4
"""To each port: so many that hardly a worker gets none."""


def main(ports: list[int]) -> None:
    """Ask until told to stop."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    lines: dict[int, socket.socket | None] = dict.fromkeys(range(len(ports) * CONNECTIONS))
    took, late = [], []
    next_at = time.monotonic()
    while not told:
        next_at = max(next_at + PERIOD, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))
        late.append(time.monotonic() - next_at)
        began = time.monotonic()
        new = {number for number, line in lines.items() if line is None}
        for number, line in lines.items():
            lines[number] = _sent(line, ports[number % len(ports)])
        took += _answered(lines, new, began)
    print(json.dumps({"probes": len(took), "lag": _spread(took), "late": _spread(late)}), flush=True)


def _sent(line: socket.socket | None, port: int) -> socket.socket | None:
    try:
        if line is None:
            line = socket.create_connection(("127.0.0.1", port), timeout=5)
        line.sendall(REQUEST)
    except OSError:
        if line is not None:
            line.close()
        return None
    return line


def _answered(lines: dict[int, socket.socket | None], new: set[int], began: float) -> list[float]:
    took = []
    with selectors.DefaultSelector() as waiting:
        for number, line in lines.items():
            if line is not None:
                waiting.register(line, selectors.EVENT_READ, number)
        while waiting.get_map():
            ready = waiting.select(5.0)
            if not ready:  # five seconds are a lag as well
                took += [time.monotonic() - began] * len(waiting.get_map())
                return took
            for key, _ in ready:
                waiting.unregister(key.fileobj)
                line = key.fileobj
                assert isinstance(line, socket.socket)
                try:
                    answer = line.recv(65536)
                except OSError:
                    answer = b""
                if answer:
                    took += [time.monotonic() - began] if key.data not in new else []
                else:
                    line.close()
                    lines[key.data] = None
    return took


def _spread(values: list[float]) -> dict[str, float]:
    found = sorted(values) or [0.0]
    return {
        name: round(found[min(len(found) - 1, int(len(found) * share))] * 1000, 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("most", 1.0))
    }


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1:]])
