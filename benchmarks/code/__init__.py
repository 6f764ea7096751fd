"""What the code server's sandbox costs and what it stops; `python -m benchmarks.code`."""
