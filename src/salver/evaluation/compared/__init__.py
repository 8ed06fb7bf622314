"""What comparing two versions finds."""
