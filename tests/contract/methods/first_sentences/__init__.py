"""A method for the tests of the service."""
