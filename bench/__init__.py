"""Measurements of fastgate: a table of cases and a runner, started by `python -m bench`; README.md says what they mean.

Rule: everything is measured against a peer in the same run, on loopback, with bounded load, and is stopped at the end.
May import: tests.support.process (children that end for certain). The gateway is only ever run as a process.
"""
