"""What comes in (captions) and what stays (the ledger of scores)."""
