/* The programs of the folder on Linux: check the folder, then become its Python.

   Python is started by the folder's own dynamic loader with the folder's own libraries, so that
   nothing depends on the host's. exec keeps the process: there is never a second one. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "manifest.h"

static int folder;

static int sum_of(const char *name, long long size, uint64_t *result) {
    static unsigned char buffer[1 << 17];
    struct stat status;
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size != size) {
        close(file);
        return -1;
    }
    checksum sum;
    begin_checksum(&sum);
    size_t held = 0;
    while (size > 0) {
        size_t room = sizeof buffer - held;
        ssize_t got = read(file, buffer + held, size < (long long)room ? (size_t)size : room);
        if (got <= 0) {
            close(file);
            return got == 0 ? -1 : 0;
        }
        size -= got;
        held += got;
        add_blocks(&sum, buffer, held / 32);
        memmove(buffer, buffer + held / 32 * 32, held % 32);
        held %= 32;
    }
    close(file);
    *result = end_checksum(&sum, buffer, held);
    return 1;
}

#ifdef WRITE_MANIFEST

/* Print the manifest's line for each name that is read, of files beneath the current directory. */
int main(void) {
    char name[PATH_MAX];
    folder = AT_FDCWD;
    while (fgets(name, sizeof name, stdin) != NULL) {
        struct stat status;
        uint64_t sum;
        name[strcspn(name, "\n")] = 0;
        if (stat(name, &status) != 0 || sum_of(name, status.st_size, &sum) != 1) {
            perror(name);
            return 1;
        }
        printf("%016llx %lld %s\n", (unsigned long long)sum, (long long)status.st_size, name);
    }
    return 0;
}

#else

static long load(const char *name, char *to, long most) {
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    long length = 0, got;
    while ((got = read(file, to + length, most - length)) > 0)
        length += got;
    close(file);
    return got < 0 ? -1 : length;
}

/* What each program starts Python with: alone, without site, writing nothing beside its files. */
#define RUN(module) "import sys; from boincvm.cli." module " import main; sys.exit(main())"
static char *const ALONE[] = {"-I", "-S", "-B", NULL};
static char *const WRAPPER[] = {"-I", "-S", "-B", "-c", RUN("boinc_wrapper"), NULL};
static char *const BOINCVM[] = {"-I", "-S", "-B", "-c", RUN("main"), NULL};

/* What has glibc's loader read the host's libraries, or has another memory manager. The host's
   LD_LIBRARY_PATH counts for nothing beside --library-path, and goes on to the host's programs. */
static const char *const OF_THE_HOST[] = {"LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", NULL};

/* What the loader and Python divide a path at, or replace. */
#define DIVIDES ":;$"

static char *beneath(const char *directory, const char *name) {
    char *path = malloc(strlen(directory) + strlen(name) + 2);
    if (path != NULL)
        sprintf(path, "%s/%s", directory, name);
    return path;
}

int main(int count, char **arguments) {
    char *own = realpath((const char *)getauxval(AT_EXECFN), NULL);
    if (own == NULL) {
        perror("boincvm: its own file cannot be found");
        return HOST_ERROR;
    }
    char *program = strrchr(own, '/');
    *program++ = 0;
    if (strpbrk(own, DIVIDES) != NULL) {
        fprintf(stderr, "boincvm: %s has one of " DIVIDES " in its path; move it elsewhere\n", own);
        return HOST_ERROR;
    }
    folder = open(own, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *name = own;
    const char *what = folder < 0 ? "cannot be opened" : fault(&name);
    if (what != NULL) {
        fprintf(stderr, TOLD, name, what);
        return HOST_ERROR;
    }
    char *const *start = strcmp(program, "python") == 0 ? ALONE
        : strcmp(program, "boincvm") == 0 ? BOINCVM : WRAPPER;
    char *loader = beneath(own, "lib/boincvm");
    char *before[] = {loader, "--argv0", beneath(own, "python"), "--inhibit-cache",
        "--library-path", beneath(own, "lib"), beneath(own, "lib/python"), NULL};
    char **all = calloc(count + 16, sizeof *all);
    if (all == NULL)
        return HOST_ERROR;
    char **next = all;
    for (char *const *given = before; *given != NULL; given++)
        *next++ = *given;
    for (char *const *given = start; *given != NULL; given++)
        *next++ = *given;
    for (int number = 1; number < count; number++)
        *next++ = arguments[number];
    for (const char *const *variable = OF_THE_HOST; *variable != NULL; variable++)
        unsetenv(*variable);
    execv(loader, all);
    perror(loader);
    return HOST_ERROR;
}

#endif
