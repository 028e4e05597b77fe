"""``python -m lightssl``: the same program, as torchrun starts it."""

from lightssl.cli.app import main

main()
