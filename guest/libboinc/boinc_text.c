/* See str_util.h and error_numbers.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "str_util.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error_numbers.h"

static locale_t c_locale;
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

double boincvm_strtod(const char *text, char **end) {
    pthread_once(&made, make_locale);
    return c_locale == (locale_t)0 ? strtod(text, end) : strtod_l(text, end, c_locale);
}

const char *boincerror(int number) {
    static __thread char text[32];
    snprintf(text, sizeof text, "BOINC error %d", number);
    return text;
}

void strcpy_overlap(char *to, const char *from) { memmove(to, from, strlen(from) + 1); }

int parse_command_line(char *line, char **words) {
    static const char blanks[] = " \t\n\v\f\r";
    int count = 0;
    for (line += strspn(line, blanks); *line != '\0'; line += strspn(line, blanks)) {
        char quote[2] = {0, 0};
        if (*line == '\'' || *line == '"') {
            quote[0] = *line++;
        }
        words[count++] = line;
        line += strcspn(line, quote[0] != '\0' ? quote : blanks);
        if (*line != '\0') {
            *line++ = '\0';
        }
    }
    words[count] = NULL;
    return count;
}

int string_substitute(
    const char *text, char *out, int size, const char *old, const char *replacement) {
    size_t used = 0, room = size > 0 ? (size_t)size - 1 : 0, old_length = strlen(old);
    int result = 0;
    while (*text != '\0') {
        int found = old_length > 0 && strncmp(text, old, old_length) == 0;
        size_t length = found ? strlen(replacement) : 1;
        if (length > room - used) {
            result = ERR_BUFFER_OVERFLOW;
            break;
        }
        memcpy(out + used, found ? replacement : text, length);
        used += length;
        text += found ? old_length : 1;
    }
    if (size > 0) {
        out[used] = '\0';
    }
    return result;
}

void secs_to_hmsf(double seconds, char *text) {
    long whole = (long)seconds;
    snprintf(
        text, 32, "%ldh%02ldm%02lds%02d", whole / 3600, whole / 60 % 60, whole % 60,
        (int)((seconds - (double)whole) * 100) % 100);
}

void nbytes_to_string(double bytes, double total, char *text, int size) {
    static const char *const names[] = {"bytes", "KB", "MB", "GB", "TB"};
    double scale = total != 0 ? total : bytes, unit = 1;
    int which = 0;
    for (; which < 4 && scale >= unit * 1024; which++) {
        unit *= 1024;
    }
    if (total != 0) {
        snprintf(
            text, (size_t)size, "%0.*f/%0.*f %s", which ? 2 : 0, bytes / unit, which ? 2 : 0,
            total / unit, names[which]);
    } else {
        snprintf(text, (size_t)size, "%0.*f %s", which ? 2 : 0, bytes / unit, names[which]);
    }
}
