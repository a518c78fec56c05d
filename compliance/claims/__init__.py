"""What the proof claims of itself, found through `detectors.ports`."""
