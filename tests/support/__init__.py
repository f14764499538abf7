"""Code that test files share; it has no tests."""
