"""Deepnight, seen from outside: what a program that calls the service installs and imports."""
