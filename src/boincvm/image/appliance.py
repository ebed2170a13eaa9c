"""An appliance (OVA): a machine for other hypervisors in one file, which VirtualBox imports.

It is a tar archive of an OVF descriptor (DMTF's DSP0243), the digests of all files, and two disks:
the bootable disk, which the machine has as NVMe, and the boot disc, from which the machine's
firmware starts the kernel, because that of VirtualBox boots from no disk that images have a driver
for. The part `vbox:Machine` is what VirtualBox alone reads: the order of booting and a serial line.
"""

import hashlib
import tarfile
import uuid
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

DESCRIPTOR, MANIFEST, DISK, BOOT_DISC = "machine.ovf", "machine.mf", "disk.vmdk", "boot.iso"
EPOCH = 1704067200
"""The time of all files in the archive, in seconds since 1970."""


class Appliance(NamedTuple):
    """What the descriptor says of the machine."""

    name: str
    digest: str
    """Hexadecimal; the disks' identifiers are made of it."""
    disk_size: int
    """Bytes of the disk, as the machine sees it."""
    memory: int
    """Bytes."""


def write_appliance(path: Path, appliance: Appliance, disk: Path, disc: Path) -> None:
    """Write the archive to the new file `path`. Raises OSError."""
    descriptor = _descriptor(appliance, disk.stat().st_size, disc.stat().st_size).encode()
    digests = [(DESCRIPTOR, hashlib.sha256(descriptor).hexdigest())]
    for file in (disk, disc):
        with file.open("rb") as stream:
            digests.append((file.name, hashlib.file_digest(stream, "sha256").hexdigest()))
    manifest = "".join(f"SHA256({name})= {digest}\n" for name, digest in digests).encode()
    with tarfile.open(path, "x", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in ((DESCRIPTOR, descriptor), (MANIFEST, manifest)):
            archive.addfile(_member(name, len(content)), BytesIO(content))
        for file in (disk, disc):
            with file.open("rb") as stream:
                archive.addfile(_member(file.name, file.stat().st_size), stream)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, EPOCH, 0o644
    return member


def _identifiers(digest: str) -> tuple[str, str, str]:
    """Return UUIDs for the machine, its disk and its boot disc."""
    namespace = uuid.UUID(hex=digest[:32])
    machine, disk, disc = (str(uuid.uuid5(namespace, name)) for name in ("", DISK, BOOT_DISC))
    return machine, disk, disc


def _descriptor(appliance: Appliance, file_size: int, disc_size: int) -> str:
    machine, disk, disc = _identifiers(appliance.digest)
    memory = appliance.memory >> 20
    items = (
        _item(1, "1 virtual CPU", 3, "<rasd:VirtualQuantity>1</rasd:VirtualQuantity>"),
        _item(
            2,
            f"{memory} MB of memory",
            4,
            "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>",
            f"<rasd:VirtualQuantity>{memory}</rasd:VirtualQuantity>",
        ),
        _item(3, "IDE controller", 5, "<rasd:Address>0</rasd:Address>", _subtype("PIIX4")),
        _item(4, "NVMe controller", 20, "<rasd:Address>0</rasd:Address>", _subtype("NVMe")),
        _item(5, "boot disc", 15, *_attached(3, "disc")),
        _item(6, "disk", 17, *_attached(4, "disk")),
    )
    return f"""\
<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"\
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"\
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"\
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"\
 xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href="{DISK}" ovf:size="{file_size}"/>
    <File ovf:id="file2" ovf:href="{BOOT_DISC}" ovf:size="{disc_size}"/>
  </References>
  <DiskSection>
    <Info>The disks</Info>
    <Disk ovf:diskId="disk" ovf:fileRef="file1" ovf:capacity="{appliance.disk_size}"\
 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"\
 vbox:uuid="{disk}"/>
    <Disk ovf:diskId="disc" ovf:fileRef="file2" ovf:capacity="{disc_size}"\
 ovf:format="http://www.ecma-international.org/publications/standards/Ecma-119.htm"\
 vbox:uuid="{disc}"/>
  </DiskSection>
  <VirtualSystem ovf:id={quoteattr(appliance.name)}>
    <Info>A machine of an image of boincvm</Info>
    <Name>{escape(appliance.name)}</Name>
    <OperatingSystemSection ovf:id="101">
      <Info>Linux</Info>
      <Description>Linux26_64</Description>
      <vbox:OSType ovf:required="false">Linux26_64</vbox:OSType>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>What the machine needs</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{escape(appliance.name)}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType>
      </System>
{"".join(items)}\
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.16-linux" uuid="{{{machine}}}"\
 name={quoteattr(appliance.name)} OSType="Linux26_64">
      <ovf:Info>The same for VirtualBox</ovf:Info>
      <Hardware>
        <CPU count="1"><LongMode enabled="true"/></CPU>
        <Memory RAMSize="{memory}"/>
        <Boot>
          <Order position="1" device="DVD"/>
          <Order position="2" device="None"/>
          <Order position="3" device="None"/>
          <Order position="4" device="None"/>
        </Boot>
        <BIOS><IOAPIC enabled="true"/></BIOS>
        <Network><Adapter slot="0" enabled="false"/></Network>
        <RTC localOrUTC="UTC"/>
        <UART>
          <Port slot="0" enabled="true" IOBase="0x3f8" IRQ="4" hostMode="Disconnected"/>
        </UART>
      </Hardware>
      <StorageControllers>
        <StorageController name="boot" type="PIIX4" PortCount="2" useHostIOCache="true"\
 Bootable="true">
          <AttachedDevice passthrough="false" type="DVD" port="0" device="0">
            <Image uuid="{{{disc}}}"/>
          </AttachedDevice>
        </StorageController>
        <StorageController name="disks" type="NVMe" PortCount="1" useHostIOCache="true"\
 Bootable="true">
          <AttachedDevice type="HardDisk" port="0" device="0">
            <Image uuid="{{{disk}}}"/>
          </AttachedDevice>
        </StorageController>
      </StorageControllers>
    </vbox:Machine>
  </VirtualSystem>
</Envelope>
"""


def _subtype(name: str) -> str:
    return f"<rasd:ResourceSubType>{name}</rasd:ResourceSubType>"


def _attached(controller: int, disk: str) -> tuple[str, ...]:
    return (
        "<rasd:AddressOnParent>0</rasd:AddressOnParent>",
        f"<rasd:HostResource>ovf:/disk/{disk}</rasd:HostResource>",
        f"<rasd:Parent>{controller}</rasd:Parent>",
    )


def _item(number: int, name: str, kind: int, *elements: str) -> str:
    """Return one device; the elements of a device are in the order of their names."""
    own = (
        f"<rasd:Caption>{name}</rasd:Caption>",
        f"<rasd:ElementName>{name}</rasd:ElementName>",
        f"<rasd:InstanceID>{number}</rasd:InstanceID>",
        f"<rasd:ResourceType>{kind}</rasd:ResourceType>",
    )
    lines = "".join(f"        {element}\n" for element in sorted((*own, *elements)))
    return f"      <Item>\n{lines}      </Item>\n"
