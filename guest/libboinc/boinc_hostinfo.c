/* See hostinfo.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "hostinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "str_replace.h"

/* The value of the first line "name : value" of /proc/cpuinfo that has this name. */
static void cpu_field(const char *name, char *value, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t room = 0;
    value[0] = '\0';
    while (file != NULL && value[0] == '\0' && getline(&line, &room, file) > 0) {
        char *colon = strchr(line, ':');
        if (strncmp(line, name, strlen(name)) == 0 && colon != NULL && colon[1] == ' ') {
            strlcpy(value, colon + 2, size);
            value[strcspn(value, "\n")] = '\0';
        }
    }
    free(line);
    if (file != NULL) {
        fclose(file);
    }
}

void boincvm_ask_system(HOST_INFO *host) {
    struct utsname name;
    struct statvfs disk;
    struct sysinfo memory;
    struct tm local;
    time_t now = time(NULL);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    host->p_ncpus = processors > 0 ? (int)processors : 1;
    cpu_field("vendor_id", host->p_vendor, sizeof host->p_vendor);
    cpu_field("model name", host->p_model, sizeof host->p_model);
    cpu_field("flags", host->p_features, sizeof host->p_features);
    if (localtime_r(&now, &local) != NULL) {
        host->timezone = (int)local.tm_gmtoff;
    }
    if (uname(&name) == 0) {
        strlcpy(host->os_name, name.sysname, sizeof host->os_name);
        strlcpy(host->os_version, name.release, sizeof host->os_version);
        strlcpy(host->domain_name, name.nodename, sizeof host->domain_name);
    }
    if (sysinfo(&memory) == 0) {
        host->m_nbytes = (double)memory.totalram * memory.mem_unit;
        host->m_swap = (double)memory.totalswap * memory.mem_unit;
    }
    if (statvfs(".", &disk) == 0) {
        host->d_total = (double)disk.f_blocks * (double)disk.f_frsize;
        host->d_free = (double)disk.f_bavail * (double)disk.f_frsize;
    }
}
