"""Orchestration: what Prefect sees."""
