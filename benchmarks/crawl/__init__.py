"""What reading a page costs, beside floors and peers: `python -m benchmarks.crawl`."""
