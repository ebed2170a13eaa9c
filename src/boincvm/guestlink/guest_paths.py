"""Where a job's files are in a guest, and the environment of its programs."""

from boincvm.job.model import GUEST_DIRECTORY

WORK = GUEST_DIRECTORY
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
}
