"""The command line, one module for each verb. The only package that sees all the others."""

from bitswitch.chain import CHECKPOINT, FOLDER, NETWORK, OK, REFUSED
from bitswitch.command_line import main

__all__ = ["CHECKPOINT", "FOLDER", "NETWORK", "OK", "REFUSED", "main"]
