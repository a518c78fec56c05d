"""What may look at runs from outside: one way to tell of them, one file; an environment variable asks for it."""
