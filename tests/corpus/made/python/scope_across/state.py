"""State that another module changes."""

total = 0
