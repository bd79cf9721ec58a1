"""Coverage-guided fuzzing, run by `make fuzz`: not part of the tests, for it ends when it is told to."""
