"""A configuration that was read once, handed to other processes as values: they all compile the same."""

from typing import Any

from fastgate.config.document import Document
from fastgate.config.load import Config
from fastgate.config.schema import Root


def handed(config: Config) -> dict[str, Any]:
    """Describe a configuration in values that JSON knows. They hold its secrets."""
    return {
        "file": config.file,
        "directory": config.directory,
        "version": config.version,
        "data": config.data,
    }


def taken(values: dict[str, Any]) -> Config:
    """Make the configuration that was handed over; its problems, if any come up later, have no lines."""
    data = values["data"]
    return Config(
        file=values["file"],
        directory=values["directory"],
        root=Root.model_validate(data),
        version=values["version"],
        document=Document(data),
        data=data,
    )
