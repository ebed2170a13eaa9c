"""What libvirt's events tell of a domain: its pauses, and the jobs of its disk."""

import libvirt

from boincvm.hypervisor.libvirt.watch import Watch


async def test_the_length_of_a_pause() -> None:
    """Not of one that began before it was asked for, nor of the next one."""
    watch = Watch()
    watch.on_lifecycle(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0, 1.0)
    pause = watch.next_pause()
    watch.on_lifecycle(libvirt.VIR_DOMAIN_EVENT_RESUMED, 0, 2.0)
    assert not pause.done()
    for begin, end in ((3.0, 3.5), (4.0, 9.0)):
        watch.on_lifecycle(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0, begin)
        watch.on_lifecycle(libvirt.VIR_DOMAIN_EVENT_RESUMED, 0, end)
    assert await pause == 0.5


async def test_a_job_of_a_domain_that_ends() -> None:
    """Nobody waits for it for ever, whether the end comes before or after."""
    watch = Watch()
    event = watch.next_disk_event()
    watch.on_disk_job(libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
    assert await event == libvirt.VIR_DOMAIN_BLOCK_JOB_READY
    event = watch.next_disk_event()
    stopped, crashed = (
        libvirt.VIR_DOMAIN_EVENT_STOPPED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED,
    )
    watch.on_lifecycle(stopped, crashed, 1.0)
    assert await event == libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED
    assert await watch.next_disk_event() == libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED
