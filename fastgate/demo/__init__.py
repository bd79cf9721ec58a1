"""Something to look at without setting anything up: an identity provider, an echo service, the gateway in front.

Rule: everything listens on loopback and lives in memory; the gateway itself is the real one, started from a real
file through the real loader.
May import: everything below (app, control, config, model, clock, errors); aiohttp, rich, uvloop.
May not: be imported by the gateway.
"""
