"""What test files share. Nothing here states a promise."""
