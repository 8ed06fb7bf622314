"""Whether it can take its place: cases, contracts, skew, infrastructure."""
