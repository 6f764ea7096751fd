"""How long the servers take to start; `python -m benchmarks.startup`."""
