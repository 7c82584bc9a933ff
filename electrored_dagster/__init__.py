"""Dagster: schedules, sensors and jobs, and the platform as one asset graph; no business logic."""
