"""A process's settings as the environment of its children."""

from __future__ import annotations

import json
import os

from service.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting that is not at its default."""
    variables = dict(os.environ)
    for name, value in settings.model_dump(mode="json", exclude_unset=True).items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            variables[f"DEEPNIGHT_{name.upper()}"] = text
    return variables
