"""The process of one worker: what the supervisor tells it, and what becomes of it when the supervisor is gone.

Rule: a worker outlives nobody's patience. It begins with everything that the supervisor knows (configuration,
revocations), says every second that it lives, and when the supervisor is gone it finishes what is open and ends.
May import: app and everything below; orjson, uvloop, structlog.
May not: supervisor; fork or start threads in the zygote.
"""
