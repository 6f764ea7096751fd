"""`python -m memento` is the command `memento`."""

from memento.cli import main

main()
