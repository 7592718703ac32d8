"""What computes: a model's one door, the scorer behind it, and what is prepared once per model and machine."""
