/* See graphics2.h and diagnostics.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "graphics2.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "boinc_api.h"
#include "boinc_init_data.h"
#include "diagnostics.h"
#include "error_numbers.h"
#include "filesys.h"
#include "shmem.h"
#include "str_util.h"
#include "util.h"

#define STATUS_FILE "graphics_status.xml"

static void shared_file(const char *name, char *path, size_t size) {
    snprintf(path, size, "boinc_%s_%d", name, boincvm_slot());
}

void *boinc_graphics_make_shmem(const char *name, int size) {
    char path[MAXPATHLEN];
    void *memory;
    shared_file(name, path, sizeof path);
    return size > 0 && create_shmem_mmap(path, (size_t)size, &memory) == 0 ? memory : NULL;
}

void *boinc_graphics_get_shmem(const char *name) {
    char path[MAXPATHLEN];
    void *memory;
    shared_file(name, path, sizeof path);
    return attach_shmem_mmap(path, &memory) == 0 ? memory : NULL;
}

int boinc_write_graphics_status(double cpu_time, double elapsed_time, double fraction_done) {
    /* In millionths: a decimal point that no locale makes a comma. */
    const double values[4] = {dtime(), cpu_time, elapsed_time, fraction_done};
    static const char *const names[4] = {"updated_time", "cpu_time", "elapsed_time", "fraction_done"};
    FILE *file = boinc_fopen(STATUS_FILE, "w");
    bool is_whole;
    int index;
    if (file == NULL) {
        return ERR_FOPEN;
    }
    fputs("<graphics_status>\n", file);
    for (index = 0; index < 4; index++) {
        long long millionths = (long long)(values[index] * 1e6);
        fprintf(
            file, "<%s>%lld.%06lld</%s>\n", names[index], millionths / 1000000, millionths % 1000000,
            names[index]);
    }
    fputs("<boinc_status></boinc_status>\n</graphics_status>\n", file);
    is_whole = !ferror(file);
    return fclose(file) == 0 && is_whole ? 0 : ERR_FWRITE;
}

static double value(const char *text, const char *tag) {
    size_t length;
    const char *start = boincvm_element(text, tag, &length);
    return start == NULL ? 0 : boincvm_strtod(start, NULL);
}

int boinc_parse_graphics_status(
    double *update_time, double *cpu_time, double *elapsed_time, double *fraction_done,
    struct BOINC_STATUS *status) {
    char text[8192];
    size_t length;
    if (boincvm_read_file(STATUS_FILE, text, sizeof text) < 0) {
        return ERR_FOPEN;
    }
    *update_time = value(text, "updated_time");
    *cpu_time = value(text, "cpu_time");
    *elapsed_time = value(text, "elapsed_time");
    *fraction_done = value(text, "fraction_done");
    memset(status, 0, sizeof *status);
    return boincvm_element(text, "graphics_status", &length) == NULL ? ERR_XML_PARSE : 0;
}

void boinc_trace(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

void boinc_info(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}
