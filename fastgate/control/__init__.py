"""What operators see and steer: health, metrics, status, revocation, reload, the access and the event log.

Rule: cold. It may take its time, but it may never make a request wait: nothing here blocks the event loop,
whatever becomes of the sink or of the person on the other side.
May import: config, gate, tokens, policy, model, stats, clock, errors; aiohttp, orjson, structlog,
prometheus_client.
May not: dataplane (they meet in app), secrets or tokens in anything that is written.
"""
