"""What comes in: files of captions, rows, unique prompts, and images that belong to rows."""
