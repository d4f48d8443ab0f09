"""What is wrong with training rows: found, counted, and shown with a reason per row."""
