"""The rows of the registry, by what they have in common."""
