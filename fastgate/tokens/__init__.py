"""From an access token to a token state: remembered, under way, or asked for.

Rule: every await has a deadline and an owner that is nobody's request; a failure is never remembered; a token
leaves the process in `introspector` only. What is written is checked at that moment against what was revoked.
May import: policy, model, stats, clock, errors, asyncio, aiohttp's client, structlog.
May not: HTTP server types; anything above; logging a token, a secret or text that a peer sent.
"""
