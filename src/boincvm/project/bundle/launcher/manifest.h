/* The check of a folder against its manifest, which has one line for each file:

       CHECKSUM SIZE NAME      XXH64 in hexadecimal, bytes, path beneath the folder

   and a last line with the checksum of all lines before it, their size, and no name. What includes
   this defines `load`, which reads a small file, and `sum_of`, which reads one of any size. */

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"

#define MANIFEST "manifest"
#define MOST_MANIFEST 1048576
#define HOST_ERROR 224 /* exit_codes.py */

#define TOLD "boincvm: %s %s; install this folder again: unpack its archive\n"

/* Set the checksum of the file `name`, which has to have `size` bytes. Return 0 if it cannot be
   read, and -1 if it has another size. */
static int sum_of(const char *name, long long size, uint64_t *sum);

#ifndef WRITE_MANIFEST

static char manifest[MOST_MANIFEST + 1];

/* Read the file `name` into `to`, at most `most` bytes; return its size, or -1. */
static long load(const char *name, char *to, long most);

static uint64_t sum_of_bytes(const char *bytes, size_t size) {
    checksum sum;
    begin_checksum(&sum);
    add_blocks(&sum, (const unsigned char *)bytes, size / 32);
    return end_checksum(&sum, (const unsigned char *)bytes + size / 32 * 32, size % 32);
}

/* Return the size of the manifest's lines before the last one, or -1 if it is not whole. */
static long whole_manifest(void) {
    long length = load(MANIFEST, manifest, MOST_MANIFEST);
    if (length < 2 || manifest[length - 1] != '\n')
        return -1;
    manifest[length] = 0;
    long before = length - 1;
    while (before > 0 && manifest[before - 1] != '\n')
        before--;
    char *next;
    uint64_t expected = strtoull(manifest + before, &next, 16);
    if (*next != ' ' || strtoll(next, &next, 10) != before || strcmp(next, "\n") != 0)
        return -1;
    return sum_of_bytes(manifest, before) == expected ? before : -1;
}

/* Return NULL if the folder is as it was made, else what is wrong with the file `*name`. */
static const char *fault(const char **name) {
    *name = MANIFEST;
    long lines = whole_manifest();
    if (lines < 0)
        return "is missing, or was altered or truncated";
    for (char *line = manifest; line < manifest + lines;) {
        uint64_t expected = strtoull(line, &line, 16), found;
        long long size = strtoll(line, &line, 10);
        char *end = strchr(line, '\n');
        *end = 0;
        *name = line + 1;
        int got = sum_of(*name, size, &found);
        if (got <= 0 || found != expected)
            return got == 0 ? "is missing or cannot be read" : "was altered or truncated";
        line = end + 1;
    }
    return NULL;
}

#endif
