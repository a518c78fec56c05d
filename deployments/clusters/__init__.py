"""Kinds of Dask clusters: one kind, one file."""
