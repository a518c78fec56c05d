"""The engine: a tree of sources in, a run record out."""
