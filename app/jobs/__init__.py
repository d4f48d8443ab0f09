"""Durable jobs: DBOS executes and recovers, the `jobs` table shows state and progress."""
