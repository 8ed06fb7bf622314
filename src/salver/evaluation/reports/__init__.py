"""What is left behind: results, records, pages."""
