"""Sockets and bytes in both directions: the aiohttp server and its protocol, upstream connections, relay, tunnel.

Rule: bytes in, bytes out. Callbacks never block, every buffer is bounded, every pause has its resume, and what the
two sides of a request mean is decided elsewhere: `gate` says where it goes, `policy` says how heads read.
May import: gate, policy, model, stats, clock, errors, aiohttp, asyncio.
May not: know OAuth, read configuration, format logs.
"""
