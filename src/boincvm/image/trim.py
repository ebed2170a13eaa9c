"""What of the packages does not go into an image: nobody reads or runs it there."""

import re

_DROPPED = re.compile(
    r"""
      boot/
    | (usr/)?lib/modules/
    | (usr/)?lib/(udev|systemd|klibc[^/]*)(/|$)
    | usr/lib/(systemd|udev|tmpfiles\.d|sysusers\.d|binfmt\.d|klibc)(/|$)
    | usr/share/(man|info|lintian|bug|doc-base|initramfs-tools|bash-completion|zsh|linda)(/|$)
    | usr/share/(pixmaps|icons|applications|menu|metainfo|gtk-doc|help|pam-configs|binfmts)(/|$)
    | usr/share/doc/[^/]+/(?!copyright$)
    | usr/share/locale/(?!locale\.alias$)
    | usr/share/i18n/
    | usr/share/zoneinfo/(?!(UTC|Etc(/.*)?|GMT|tzdata\.zi|zone1970\.tab|iso3166\.tab)$)
    | etc/(init\.d|udev|initramfs-tools|kernel|modprobe\.d|cron\.[a-z]+|logrotate\.d|systemd)(/|$)
    | var/(cache|log)/apt(/|$)
    | dev/
    """,
    re.VERBOSE,
)


def is_dropped(name: str) -> bool:
    """Whether the file `name` (relative, `usr/share/man/...`) stays out of an image.

    Copyright files stay: licenses ask for it.
    """
    return _DROPPED.match(name) is not None
