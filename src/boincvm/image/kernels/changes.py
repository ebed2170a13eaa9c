"""What we change in the kernel's sources: few lines each, for what no option offers.

A change is found by a few words of the sources around it, which must occur once. Sources that lack
them are built without the change, and the build says so.

What `old` and `new` quote of the sources, a few words each, is the Linux kernel's and stays under
its licence, GPL-2.0, as does the kernel that is built from them.
"""

from pathlib import Path
from typing import NamedTuple


class Edit(NamedTuple):
    """One place of a change."""

    path: str
    """The file, relative to the sources."""
    old: str
    new: str


class Change(NamedTuple):
    """A change, all of which is made, or nothing."""

    what: str
    """For people."""
    edits: tuple[Edit, ...]


_STATIC = Change(
    "a network card in a kernel that is linked statically",
    # Other transports of the card than ours resolve names by the C library's modules.
    (
        Edit(
            "arch/um/drivers/Kconfig",
            'network devices"\n\tselect MAY_HAVE_RUNTIME_DEPS\n',
            'network devices"\n',
        ),
    ),
)
_VECTOR = "arch/um/drivers/vector_kern.c"
_CABLE = Change(
    "a network card whose cable can be unplugged",
    # A frame of one byte, which no network has, is 1 if the cable is plugged in, and 0 if not. By
    # the message the driver recognizes a kernel that has this (hypervisor/uml/network.py).
    (
        Edit(_VECTOR, 'sizeof(dev->name), "vec%d"', 'sizeof(dev->name), "eth%d"'),
        Edit(
            _VECTOR,
            "\t\tskb = (*skbuff_vector);\n",
            """\
		skb = (*skbuff_vector);
		if (skb != NULL && mmsg_vector->msg_len == 1) {
			netdev_info(vp->dev, "boincvm: cable %d\\n", *skb->data);
			if (*skb->data)
				netif_carrier_on(vp->dev);
			else
				netif_carrier_off(vp->dev);
			mmsg_vector->msg_len = 0;
		}
""",
        ),
    ),
)

_TRAP = "arch/um/kernel/trap.c"
_FAULT = "int handle_page_fault(unsigned long address, unsigned long ip,\n"
_MAPPED = "\t} while (!pte_present(*pte));\n"
_FAULT_AHEAD = Change(
    "fewer page faults",
    # A fault switches to the kernel's process and back, which takes far longer than to clear a
    # page. So a program that writes to a new page just after one that it has gets 16 at once.
    (
        Edit(
            _TRAP,
            _FAULT,
            """\
static void fault_ahead(struct vm_area_struct *vma, unsigned long address, pte_t *pte)
{
	unsigned long end = pmd_addr_end(address, vma->vm_end);
	int i;

	address &= PAGE_MASK;
	if (address == vma->vm_start || !(address & ~PMD_MASK) || pte_none(pte[-1]))
		return;
	for (i = 1; i < 16; i++) {
		address += PAGE_SIZE;
		if (address >= end || !pte_none(pte[i]))
			return;
		if (handle_mm_fault(vma, address, FAULT_FLAG_WRITE, NULL) &
			(VM_FAULT_ERROR | VM_FAULT_RETRY))
			return;
	}
}

"""
            + _FAULT,
        ),
        Edit(
            _TRAP,
            _MAPPED,
            _MAPPED
            + """\
	if (is_user && is_write && vma_is_anonymous(vma))
		fault_ahead(vma, address, pte);
""",
        ),
    ),
)

CHANGES = (_STATIC, _CABLE, _FAULT_AHEAD)
"""Those of the kernel `uml`."""


def apply(tree: Path, changes: tuple[Change, ...]) -> list[str]:
    """Change the sources in `tree`; return the descriptions of changes that they lack words for.

    Raises OSError.
    """
    missing = []
    for change in changes:
        texts: dict[Path, str] = {}
        for edit in change.edits:
            path = tree / edit.path
            text = texts.get(path) or (path.read_text("utf-8") if path.is_file() else "")
            if text.count(edit.old) != 1:
                missing.append(change.what)
                break
            texts[path] = text.replace(edit.old, edit.new)
        else:
            for path, text in texts.items():
                path.write_text(text, "utf-8")
    return missing
