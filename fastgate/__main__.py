"""`python -m fastgate` is `fastgate`."""

from fastgate.cli.main import main

if __name__ == "__main__":
    main()
