"""Kinds of shared stores: one kind, one file."""
