"""What people type: `fastgate run`, `check`, `explain`, `routes`, `schema`, `revoke`, `demo`.

Rule: bad input is one sentence or one line per problem on stderr, status 1 (2 for a wrong command line), and nothing
half-started. No token, no secret in any output.
May import: everything below, typer, rich.
May not: decide anything; a command calls what the gateway itself would call.
"""
