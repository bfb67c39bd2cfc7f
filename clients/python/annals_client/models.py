"""The types of the OpenAPI document."""

from .generated.models import *  # noqa: F403
