"""Algorithms side by side: what a bakeoff's workspaces measured, what it says, how it is shown."""
