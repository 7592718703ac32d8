"""A closer look: at single captions, and at how well scores tell memorized prompts."""
