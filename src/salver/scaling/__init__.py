"""How a deployment would do under a load, and what its settings should be: from measurements, without guessing."""
