"""A stand-in for VirtualBox 6.1, which no machine here has.

It says that it is 6.1, takes the verbs and options that 6.1 takes and refuses all others, as 6.1
does, and has the real VirtualBox do what they say. The names are those of 6.1.36, from
its published source; those that 6.1 itself calls obsolete are left out.
"""

import os
import sys
from pathlib import Path

VERSION = "6.1.50r161033"
_MODIFY = """
name groups description ostype iconfile memory pagefusion vram firmware acpi ioapic pae longmode
cpuid-portability-level triplefaultreset apic x2apic paravirtprovider paravirtdebug hwvirtex
nestedpaging largepages vtxvpid vtxux ibpb-on-vm-exit ibpb-on-vm-entry spec-ctrl l1d-flush-on-sched
l1d-flush-on-vm-entry mds-clear-on-sched mds-clear-on-vm-entry nested-hw-virt cpuid-set cpuid-remove
cpuidset cpuidremove cpuidremoveall cpus cpuhotplug cpu-profile plugcpu unplugcpu cpuexecutioncap
rtcuseutc graphicscontroller monitorcount accelerate3d accelerate2dvideo bioslogofadein
bioslogofadeout bioslogodisplaytime bioslogoimagepath biosbootmenu biossystemtimeoffset biosapic
biospxedebug system-uuid-le boot nictracefile nictrace nicproperty nictype nicspeed nicbootprio
nicpromisc nicbandwidthgroup nic cableconnected bridgeadapter hostonlyadapter intnet nicgenericdrv
nat-network natnetwork natnet natbindip natsettings natpf nataliasmode nattftpprefix nattftpfile
nattftpserver natdnspassdomain natdnsproxy natdnshostresolver macaddress mouse keyboard uartmode
uarttype uart lptmode lpt guestmemoryballoon audiocontroller audiocodec audio audioin audioout
clipboard-mode clipboard clipboard-file-transfers draganddrop vrdeproperty vrdeport vrdeaddress
vrdeauthtype vrdeauthlibrary vrdemulticon vrdereusecon vrdevideochannel vrdevideochannelquality
vrdeextpack vrde usbrename usbxhci usbehci usbohci usb snapshotfolder teleporter teleporterenabled
teleporterport teleporteraddress teleporterpassword teleporterpasswordfile tracing-enabled
tracing-config tracing-allow-vm-access hardwareuuid hpet iocache iocachesize chipset recording
recordingscreens recordingfile recordingmaxtime recordingmaxsize recordingopts recordingoptions
recordingvideores recordingvideoresolution recordingvideorate recordingvideofps autostart-enabled
autostart-delay autostop-type pciattach pcidetach usbcardreader defaultfrontend vm-process-priority
"""
"""Options of `modifyvm`, without the number that some end with."""
_ATTACH = """
storagectl port device type medium mtype passthrough tempeject nonrotational discard hotpluggable
bandwidthgroup forceunmount comment setuuid setparentuuid server target tport lun encodedlun
username password passwordfile initiator intnet
"""
_CONTROL = """
pause resume reset unplugcpu plugcpu cpuexecutioncap audioin audioout clipboard draganddrop poweroff
savestate acpipowerbutton acpisleepbutton keyboardputscancode keyboardputstring keyboardputfile
setlinkstate nictracefile nictrace natpf nicproperty nicpromisc nic vrde vrdeport
vrdevideochannelquality vrdeproperty usbattach usbdetach setvideomodehint setscreenlayout
setcredentials dvdattach floppyattach guestmemoryballoon teleport screenshotpng recording webcam
addencpassword removeencpassword removeallencpasswords changeuartmode vm-process-priority
"""
"""What `controlvm` can be told, without the number that some end with."""
OPTIONS = {
    "createvm": ["name", "groups", "basefolder", "ostype", "uuid", "register", "default"],
    "modifyvm": _MODIFY.split(),
    "storagectl": [
        "name",
        "add",
        "controller",
        "portcount",
        "remove",
        "rename",
        "hostiocache",
        "bootable",
    ],
    "storageattach": _ATTACH.split(),
    "sharedfolder": ["name", "hostpath", "readonly", "transient", "automount", "auto-mount-point"],
    "snapshot": [
        "details",
        "machinereadable",
        "description",
        "pause",
        "live",
        "uniquename",
        "current",
        "name",
    ],
    "showvminfo": ["details", "machinereadable", "log", "password", "passwordid"],
    "unregistervm": ["delete"],
    "list": ["long", "sorted"],
    "adoptstate": [],
    "setextradata": [],
    "controlvm": [],
}
"""The verbs that the driver may use, and their options; the number that some end with is left
out."""
HEADLESS = """
startvm vrde vrdeproperty settingspw settingspwfile record videowidth videoheight videorate filename
comment start-paused
"""
"""Options of VBoxHeadless."""
NO_PACK = "Extension Packs: 0\n"
PACK = """\
Extension Packs: 1
Pack no. 0:   Oracle VM VirtualBox Extension Pack
Version:      6.1.50
Revision:     161033
Edition:      
Description:  USB 2.0 and USB 3.0 Host Controller, Host Webcam, VirtualBox RDP, NVMe.
VRDE Module:  VBoxVRDP
Usable:       true
Why unusable: 
"""  # noqa: W291 - it prints blanks there
_PROGRAM = """\
#!{python} -ISB
import os, sys
options, control, packs = {options!r}, {control!r}.split(), {packs!r}
given = sys.argv[1:]
if given == ["--version"]:
    sys.exit(print({version!r}))
if given == ["list", "extpacks"]:
    sys.exit(print(packs, end=""))
verb = given[0]
if verb not in options:
    sys.exit(f"VBoxManage: error: Invalid command '{{verb}}'")
for word in given[1:]:
    if word.startswith("--") and word[2:].rstrip("0123456789") not in options[verb]:
        sys.exit(f"VBoxManage: error: Unknown option: {{word}}")
if verb == "controlvm" and given[2].rstrip("0123456789") not in control:
    sys.exit(f"VBoxManage: error: Invalid parameter '{{given[2]}}'")
os.execv({real!r}, [{real!r}, *given])
"""
_HEADLESS_PROGRAM = """\
#!{python} -ISB
import os, sys
for word in sys.argv[1:]:
    if word.startswith("-") and word.lstrip("-") not in {options!r}.split():
        sys.exit(f"VBoxHeadless: error: Unknown option: {{word}}")
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


def virtualbox_6_1(directory: Path, real: Path, *, packs: str = PACK) -> Path:
    """Write its programs to `directory`, over the real ones in the directory `real`; return a
    PATH."""
    directory.mkdir()
    python = sys.executable
    manage = _PROGRAM.format(
        python=python,
        options=OPTIONS,
        control=_CONTROL,
        packs=packs,
        version=VERSION,
        real=str(real / "VBoxManage"),
    )
    headless = _HEADLESS_PROGRAM.format(
        python=python, options=HEADLESS, real=str(real / "VBoxHeadless")
    )
    for name, text in (("VBoxManage", manage), ("VBoxHeadless", headless)):
        program = directory / name
        program.write_text(text)
        program.chmod(0o755)
    return Path(f"{directory}{os.pathsep}{os.environ['PATH']}")
