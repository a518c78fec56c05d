"""What the engine claims of itself: one file for each part of the validation, found through `detectors.ports`."""
