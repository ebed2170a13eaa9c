"""Where in a guest a job's files lie, and what its programs find in their environment."""

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
