"""The process that starts all others: it owns the listening sockets, the workers, the signals and the admin listener.

Rule: it survives whatever a worker does, waits for none without a deadline, and does nothing that a request waits for.
What it has promised (a socket, a revocation, a configuration in force) outlives every worker.
May import: everything below.
May not: know HTTP (`control` does); fork (the zygote does).
"""
