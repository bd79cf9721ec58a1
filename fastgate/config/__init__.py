"""Where strings die: YAML, environment and secret files become a typed schema, then an immutable `Snapshot`.

Rule: every problem of a file is reported at once, with its line and key path; no message repeats a value.
May import: policy, model, errors, pydantic, PyYAML.
May not: I/O outside `load.py` and `tls.py` (OpenSSL reads certificates itself); dataplane, tokens, control.
"""
