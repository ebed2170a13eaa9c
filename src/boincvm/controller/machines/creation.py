"""The parameters of a new machine, wherever the request to create it comes from."""

from boincvm.controller.arguments import Arguments, Kind, Parameter
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines

PARAMETERS = (
    Parameter("name", Kind.TEXT, "its id: letters, digits and . _ -", is_required=True),
    Parameter("image", Kind.TEXT, "the image that it starts from", default="base"),
    Parameter("memory", Kind.TEXT, "like 2G", default="512M"),
    Parameter("cpus", Kind.WHOLE, "virtual processors", default=1),
    Parameter("disk", Kind.TEXT, "like 8G; empty for the image's size"),
    Parameter("network", Kind.FLAG, "whether it can reach the network", default=False),
    Parameter("display", Kind.FLAG, "whether it has a screen", default=False),
    Parameter("labels", Kind.TABLE, "for selectors to match", default={}),
    Parameter("autostart", Kind.FLAG, "start it after each boot of the host", default=False),
    Parameter(
        "first_boot",
        Kind.TEXT,
        "a shell script to run before it is up for the first time",
        default="",
    ),
)


def create(machines: Machines, given: Arguments) -> LocalMachine:
    """Create a machine of this host.

    Raises UsageError, ImageMissingError, NotEnoughRoomError, OSError.
    """
    return machines.create(
        given.text("name"),
        image=given.text("image"),
        memory=given.text("memory"),
        cpus=given.whole("cpus"),
        disk=given.maybe_text("disk"),
        network=given.flag("network"),
        display=given.flag("display"),
        labels=given.table("labels"),
        autostart=given.flag("autostart"),
        first_boot=given.text("first_boot"),
    )
