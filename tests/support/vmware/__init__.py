"""A stand-in for VMware: `vmrun`, and a program that runs the machine of a .vmx file by QEMU.

It keeps the rules of the real one that are documented, or that its users have reported:

- a verb's answer and its errors are on standard output, an error is "Error: ..." with status 255;
- `vmrun` without a verb prints its version and its usage, and fails;
- a machine that runs, or whose definition another process has open, is refused ("The file is
  already in use"); a lock (the directory .lck) whose owner has died counts for nothing;
- `soft` needs VMware's tools in the guest, which ours has not; Player takes no snapshots;
- `-T` has to name the product that is installed;
- a snapshot puts a new layer over the disk, and the definition names it; a machine that goes on
  from a saved state removes it, unless the definition says that it is read-only;
- a guest that reboots starts again: nothing ends the machine;
- the log tells last with which status the machine's program exits, unless it was killed.

That a machine which is paused is not suspended, and may have a snapshot taken, is our guess.

What it does in another way: it hands kernel and initrd, which it reads from the boot disc, to QEMU
(`really_boots` has QEMU's firmware boot the disc), and a disk on virtio in place of NVMe, with
which QEMU saves no machine. Of devices it has what the guest's link needs.
"""
