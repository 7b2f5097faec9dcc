"""The configuration: YAML groups, their schemas, and how they become plain arguments."""
