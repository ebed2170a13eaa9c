/* Trickles, uploads, the network: the part of boinc_api.h that goes by files. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boinc_api.h"
#include "boinc_init_data.h"
#include "boinc_status_channel.h"
#include "error_numbers.h"
#include "str_replace.h"

#define LONGEST_NAME 255

bool boinc_disable_timer_thread = false;

/* One word of a line: no control characters, no blanks, not too long. */
static bool is_word(const char *text) {
    const char *place;
    if (text == NULL || *text == '\0' || strlen(text) > LONGEST_NAME) {
        return false;
    }
    for (place = text; *place != '\0'; place++) {
        if ((unsigned char)*place <= ' ' || *place == 0x7F) {
            return false;
        }
    }
    return true;
}

static int write_whole(int file, const char *text) {
    FILE *stream = fdopen(file, "wb");
    bool is_written;
    if (stream == NULL) {
        close(file);
        return ERR_FOPEN;
    }
    is_written = fputs(text, stream) >= 0;
    return fclose(stream) == 0 && is_written ? 0 : ERR_WRITE;
}

int boinc_send_trickle_up(const char *variety, const char *text) {
    static const char name[] = "/boincvm_trickle_XXXXXX";
    char path[PATH_MAX];
    int file, result;
    if (!is_word(variety)) {
        return ERR_INVALID_PARAM;
    }
    if (!boincvm_status_channel_exists()) {
        return 0;
    }
    if (getcwd(path, sizeof path - sizeof name) == NULL) {
        return ERR_FOPEN;
    }
    strlcat(path, name, sizeof path);
    file = mkostemp(path, O_CLOEXEC);
    if (file < 0) {
        return ERR_FOPEN;
    }
    result = write_whole(file, text);
    if (result != 0) {
        unlink(path);
        return result;
    }
    boincvm_send_message(BOINCVM_WAIT, "trickle-up %s %s", variety, path);
    return 0;
}

int boinc_receive_trickle_down(char *name, int length) {
    DIR *directory = opendir(".");
    struct dirent *entry;
    int found = 0;
    if (directory == NULL) {
        return 0;
    }
    while (!found && (entry = readdir(directory)) != NULL) {
        if (strstr(entry->d_name, "trickle_down") != NULL && (int)strlen(entry->d_name) < length) {
            strlcpy(name, entry->d_name, (size_t)length);
            found = 1;
        }
    }
    closedir(directory);
    return found;
}

int boinc_upload_file_c(const char *logical_name) {
    char path[BOINCVM_PATH_SIZE];
    int result;
    if (!is_word(logical_name) || strchr(logical_name, '/') != NULL) {
        return ERR_INVALID_PARAM;
    }
    result = boinc_resolve_filename(logical_name, path, (int)sizeof path);
    if (result == 0) {
        boincvm_send_message(BOINCVM_WAIT, "upload %s", logical_name);
    }
    return result;
}

int boinc_upload_status_c(const char *logical_name) {
    char path[sizeof UPLOAD_FILE_STATUS_PREFIX + LONGEST_NAME], text[256];
    const char *status;
    size_t length;
    if (!is_word(logical_name) || strchr(logical_name, '/') != NULL) {
        return ERR_INVALID_PARAM;
    }
    strlcpy(path, UPLOAD_FILE_STATUS_PREFIX, sizeof path);
    strlcat(path, logical_name, sizeof path);
    if (boincvm_read_file(path, text, sizeof text) < 0) {
        return ERR_NOT_FOUND;
    }
    status = boincvm_element(text, "status", &length);
    return status != NULL ? atoi(status) : ERR_NOT_FOUND;
}

void boinc_need_network(void) {}

void boinc_waiting_for_network(bool is_waiting) { (void)is_waiting; }

/* The kernel's table of IPv4 routes has a line for each, after a head. */
int boinc_network_poll(void) {
    char text[4096];
    const char *first_line;
    if (boincvm_read_file("/proc/net/route", text, sizeof text) <= 0) {
        return 1;
    }
    first_line = strchr(text, '\n');
    return first_line == NULL || first_line[1] == '\0';
}

void boinc_network_done(void) {}

int boinc_suspend_other_activities(void) { return 0; }

int boinc_resume_other_activities(void) { return 0; }

char *boinc_msg_prefix(char *text, int length) {
    time_t now = time(NULL);
    struct tm parts;
    char clock[32] = "";
    if (localtime_r(&now, &parts) != NULL) {
        strftime(clock, sizeof clock, "%H:%M:%S", &parts);
    }
    snprintf(text, (size_t)length, "%s (%d):", clock, (int)getpid());
    return text;
}
