"""What a reader sees of a verdict: pages that need nothing but themselves."""
