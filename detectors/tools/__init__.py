"""Wrapped tools: command line and output parser of one foreign program, one file each."""
