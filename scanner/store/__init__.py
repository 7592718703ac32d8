"""What stays: the ledger of scores, the records of runs, and scans read back."""
