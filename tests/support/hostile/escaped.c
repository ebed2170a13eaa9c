/* What a program tries that has taken over a User-mode Linux: it runs in the kernel's place, in its
 * sandbox. Each attempt is a line: its name, and 0 if it succeeded, else the error's number. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void tell(const char *name, long result) {
    fprintf(stderr, "%s %d\n", name, result < 0 ? errno : 0);
}

static void count_processes(void) {
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int count = 0;
    while (proc && (entry = readdir(proc)))
        count += entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
    fprintf(stderr, "processes %d\n", count);
}

static void count_root(void) {
    DIR *root = opendir("/");
    struct dirent *entry;
    fprintf(stderr, "root");
    while (root && (entry = readdir(root)))
        if (entry->d_name[0] != '.')
            fprintf(stderr, " %s", entry->d_name);
    fprintf(stderr, "\n");
}

static long fill(const char *path, size_t size) {
    static char block[1 << 20];
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    if (file < 0)
        return -1;
    for (size_t done = 0; done < size; done += sizeof block)
        if (write(file, block, sizeof block) != sizeof block) {
            unlink(path);
            return -1;
        }
    return 0;
}

int main(int count, char **arguments) {
    fprintf(stderr, "uid %d\n", getuid());
    count_processes();
    count_root();
    for (int i = 1; i < count; i++)
        tell("read", open(arguments[i], O_RDONLY));
    tell("parent", open("/proc/1/../../../../etc/passwd", O_RDONLY));
    tell("create", open("/made", O_CREAT | O_WRONLY, 0600));
    tell("replace", open("/linux", O_WRONLY));
    tell("inet", socket(AF_INET, SOCK_STREAM, 0));
    tell("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
    tell("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    tell("unshare", unshare(CLONE_NEWUSER));
    tell("clone", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    tell("clone3", syscall(SYS_clone3, 0, 0));
    tell("setns", setns(0, 0));
    tell("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    tell("chroot", chroot("/tmp"));
    tell("setuid", setuid(0) < 0 || getuid() == 0 ? -1 : 0);
    tell("module", syscall(SYS_init_module, 0, 0, ""));
    tell("bpf", syscall(SYS_bpf, 0, 0, 0));
    tell("perf", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    tell("keys", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    tell("ring", syscall(SYS_io_uring_setup, 1, 0));
    tell("faults", syscall(SYS_userfaultfd, 0));
    tell("memory", syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0));
    tell("handle", syscall(SYS_open_by_handle_at, -1, 0, 0));
    tell("trace", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    void *block = mmap(0, 1 << 29, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tell("allocate", block == MAP_FAILED ? -1 : 0);
    tell("fill", fill("/tmp/full", 1 << 28));
    return 0;
}
