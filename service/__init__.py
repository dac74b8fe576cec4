"""The HTTP side: gateway, coalescer, Ray Serve deployments, command line."""

from importlib.metadata import version

__version__ = version("deepnight")
