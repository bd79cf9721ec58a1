"""fastgate's tests: the tree mirrors the package; real parts live in `support`."""
