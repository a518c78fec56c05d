"""Tools on the ground: they read what the flight software sent."""
