"""Benchmarks of the case bank: `app` is the command group `memento-casebank bench`."""

from memento_casebank.bench.commands import app

__all__ = ["app"]
