"""What tests of the controller share."""

from support.controller.named_image import machines_can_be_created, named_image

__all__ = ["machines_can_be_created", "named_image"]
