"""`python -m app.cli`: the same as `tandem`, where the package is not installed."""

from app.cli.main import main

main()
