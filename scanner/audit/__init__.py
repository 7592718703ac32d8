"""Decisions about scored prompts, and reports of them. Sees frames only."""
