/* strlcpy and strlcat where the C library has none. See boinc_api.h. */
#ifndef BOINCVM_STR_REPLACE_H
#define BOINCVM_STR_REPLACE_H

#include <stddef.h>
#include <string.h>
#include <strings.h>

#if defined(__GLIBC__) && !(__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 38))
static inline size_t strlcpy(char *to, const char *from, size_t size) {
    size_t length = strlen(from);
    if (size > 0) {
        size_t kept = length < size ? length : size - 1;
        memcpy(to, from, kept);
        to[kept] = '\0';
    }
    return length;
}

static inline size_t strlcat(char *to, const char *from, size_t size) {
    const char *end = (const char *)memchr(to, '\0', size);
    size_t used = end != NULL ? (size_t)(end - to) : size;
    return used + strlcpy(to + used, from, size - used);
}
#endif
#endif
