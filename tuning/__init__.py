"""Examples in, a verified adapter directory out; knows transformers, peft and trl."""
