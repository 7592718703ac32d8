"""What happens: from the captions of a dataset to the scores in a store."""
