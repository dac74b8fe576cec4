"""The HTTP side: gateway, coalescer, Ray Serve deployments, command line."""
