from tests.unit.workers.conftest import home, stack

__all__ = ["home", "stack"]
