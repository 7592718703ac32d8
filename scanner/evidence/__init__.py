"""A closer look: at how well scores tell memorized prompts, and at how exactly an engine computes them."""
