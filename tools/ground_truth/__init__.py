"""How the models of the ground truth and their labelled captions are made: `python -m tools.ground_truth`."""
