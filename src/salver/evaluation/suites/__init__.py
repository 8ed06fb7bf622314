"""What is asked of a version: suites, read strictly."""
