"""The Power of Ten: one rule, one file (`c_*.py`, `python_*.py`), its examples inside."""
