"""Files of conversations -> batches of rows."""
