"""`python -m compliance.live_formats FOLDER`: reports are written beside the watched process, not in it."""

from compliance.live_formats import serve

if __name__ == "__main__":
    serve()
