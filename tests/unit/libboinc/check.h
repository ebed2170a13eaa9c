/* What a program of tests counts and tells, in C and in C++. */
#include <stdio.h>

static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%d: %s\n", __LINE__, #condition);                                              \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)
