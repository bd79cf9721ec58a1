"""Servers that the bench starts as processes of their own: an identity provider and an origin for streams."""
