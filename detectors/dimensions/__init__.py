"""One benchmark dimension, one file; found by walking this package."""
