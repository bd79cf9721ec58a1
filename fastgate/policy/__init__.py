"""What is allowed and what is said: pure functions from values to values.

Rule: a total function of its arguments; the docstring of each names its RFC section. Time is an argument.
May import: model, errors, the standard library's pure parts, orjson.
May not: async, clocks, logging, os, sockets, mutation of anything it was given.
"""
