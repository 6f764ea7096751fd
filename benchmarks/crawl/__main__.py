"""The crawl server beside its peers: `pages` (speed and memory), `probes` (what gets through), `extraction` (F1).

    python -m benchmarks.crawl pages [--pages 500] [--rendered 500] [--folder HTML] [--peers FOLDER]
    python -m benchmarks.crawl probes [--peers FOLDER]
    python -m benchmarks.crawl extraction DATA [--peers FOLDER]

`--peers` is a folder of virtual environments: `fetch` with mcp-server-fetch, `crawl4ai` with crawl4ai. A peer that is
not there is left out, and the table says so.
"""

import argparse
from pathlib import Path

from benchmarks.crawl import extraction, pages, probes


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crawl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("pages", help="pages per second, CPU and memory")
    speed.add_argument("--pages", type=int, default=500, help="static pages for each contender")
    speed.add_argument("--rendered", type=int, default=500, help="pages that a script fills; 0 for none")
    speed.add_argument("--folder", type=Path, help="HTML files to serve in place of made pages")
    safety = commands.add_parser("probes", help="addresses, browser requests, attacks and hidden text that get through")
    quality = commands.add_parser("extraction", help="F1 of the main text on a labelled set")
    quality.add_argument("data", type=Path, help="folder with ground-truth.json and html/, or with html/ and txt/")
    for command in (speed, safety, quality):
        command.add_argument("--peers", type=Path, default=Path("/nowhere"), help="folder of the peers' environments")
    options = parser.parse_args()
    if options.command == "pages":
        pages.main(options.pages, options.rendered, options.folder, options.peers)
    elif options.command == "probes":
        probes.main(options.peers)
    else:
        extraction.main(options.data, options.peers)


if __name__ == "__main__":
    main()
