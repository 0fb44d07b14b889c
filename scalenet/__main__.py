"""`python -m scalenet`."""

from scalenet.cli import main

main()
