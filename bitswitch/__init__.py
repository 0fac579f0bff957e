"""The command line, one module for each verb. The only package that sees all the others."""

from bitswitch.chain import CHECKPOINT, FIGURE, FOLDER, NETWORK, OK, REFUSED
from bitswitch.command_line import main

__all__ = ["CHECKPOINT", "FIGURE", "FOLDER", "NETWORK", "OK", "REFUSED", "main"]
