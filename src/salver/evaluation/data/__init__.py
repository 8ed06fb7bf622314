"""Whether the rows and the training can be believed."""
