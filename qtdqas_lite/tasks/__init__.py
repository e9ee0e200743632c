"""What generated networks are tried on (chapters 07 to 09)."""
