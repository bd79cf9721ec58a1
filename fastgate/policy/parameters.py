"""Urlencoded parameters of a query or a form; what is not touched stays as it came (RFC 6750 section 2)."""

from urllib.parse import unquote, unquote_plus


def values(encoded: str, name: str, *, form: bool) -> list[str]:
    """Decode every value of the parameter `name`; "+" is a space in a form only (RFC 6750 section 2.3)."""
    decode = unquote_plus if form else unquote
    pairs = (pair.partition("=") for pair in encoded.split("&"))
    return [decode(value) for key, _, value in pairs if unquote_plus(key) == name]


def without(encoded: str, name: str) -> str:
    """Remove every parameter called `name`, however its name is encoded."""
    return "&".join(pair for pair in encoded.split("&") if unquote_plus(pair.partition("=")[0]) != name)
