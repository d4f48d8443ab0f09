"""SQL: engine, sessions and tables. The only source of truth."""
