"""What is looked at: a served version, rows, and what it says of them."""
