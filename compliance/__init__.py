"""The proof: a run record in, evidence out."""
