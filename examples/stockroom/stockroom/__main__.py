"""Run the service: ``python -m stockroom --prices http://prices.example``."""

from __future__ import annotations

import argparse
from pathlib import Path

from aiohttp import web

from stockroom.app import Config, create_app


def main() -> None:
    parser = argparse.ArgumentParser(prog="stockroom", description="A small inventory service.")
    parser.add_argument("--database", type=Path, default=Path("stock.db"))
    parser.add_argument("--audit", type=Path, default=Path("audit.csv"))
    parser.add_argument("--prices", required=True, metavar="URL", help="the upstream price API")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    config = Config(database=args.database, audit=args.audit, prices_url=args.prices)
    web.run_app(create_app(config), port=args.port)


if __name__ == "__main__":
    main()
