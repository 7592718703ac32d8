"""Decisions about scored prompts. Sees frames only."""
