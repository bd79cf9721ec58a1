"""fastgate: an OAuth 2.0 token introspection gateway (RFC 7662) on aiohttp and uvloop."""

__version__ = "0.1.0"
