"""Workspaces, API keys and roles: who is asking, and what may they do."""
