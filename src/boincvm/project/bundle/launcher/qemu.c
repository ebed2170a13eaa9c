/* The programs of a folder with QEMU on Linux: each becomes the program of its name in lib/programs.

   That is started by the folder's own dynamic loader with the folder's own libraries, so that
   nothing depends on the host's. exec keeps the process: there is never a second one. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define HOST_ERROR 224 /* exit_codes.py */

/* What the loader divides a path at, or replaces. */
#define DIVIDES ":;$"

/* What has glibc's loader read the host's libraries, or has another memory manager. */
static const char *const OF_THE_HOST[] = {
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", NULL};

static char *joined(const char *directory, const char *middle, const char *name) {
    char *path = malloc(strlen(directory) + strlen(middle) + strlen(name) + 1);
    if (path == NULL) {
        perror(name);
        exit(HOST_ERROR);
    }
    sprintf(path, "%s%s%s", directory, middle, name);
    return path;
}

int main(int count, char **arguments) {
    char *own = realpath((const char *)getauxval(AT_EXECFN), NULL);
    if (own == NULL) {
        perror("QEMU: its own file cannot be found");
        return HOST_ERROR;
    }
    char *program = strrchr(own, '/');
    *program++ = 0;
    if (strpbrk(own, DIVIDES) != NULL) {
        fprintf(stderr, "%s: %s has one of " DIVIDES " in its path; move it elsewhere\n", program,
            own);
        return HOST_ERROR;
    }
    /* The loader has the program's name, by which people see the process. */
    char *loader = joined(own, "/lib/", program);
    char *before[] = {loader, "--argv0", joined(own, "/", program), "--inhibit-cache",
        "--library-path", joined(own, "/lib", ""), joined(own, "/lib/programs/", program), NULL};
    char **all = calloc(count + sizeof before / sizeof *before, sizeof *all);
    if (all == NULL)
        return HOST_ERROR;
    char **next = all;
    for (char *const *given = before; *given != NULL; given++)
        *next++ = *given;
    for (int number = 1; number < count; number++)
        *next++ = arguments[number];
    for (const char *const *variable = OF_THE_HOST; *variable != NULL; variable++)
        unsetenv(*variable);
    setenv("QEMU_MODULE_DIR", joined(own, "/lib/modules", ""), 1);
    execv(loader, all);
    perror(loader);
    return HOST_ERROR;
}
