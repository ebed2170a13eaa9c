/* See util.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "util.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "error_numbers.h"

#define LONGEST_NAP 0.1 /* seconds between two looks at a process that is waited for */

bool boinc_is_finite(double number) { return isfinite(number) != 0; }

double linux_cpu_time(int pid) {
    char path[64], text[4096];
    unsigned long user, kernel;
    const char *end;
    size_t length;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    end = strrchr(text, ')'); /* the name before it may hold anything */
    if (end == NULL ||
        sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2) {
        return 0;
    }
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

double boincvm_thread_cpu_time(void) {
    struct timespec used;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) != 0) {
        return 0;
    }
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

bool process_exists(int pid) { return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM); }

int kill_process(int pid) {
    return pid > 0 && (kill(pid, SIGKILL) == 0 || errno == ESRCH) ? 0 : ERR_KILL;
}

int get_real_executable_path(char *path, size_t size) {
    ssize_t length = readlink("/proc/self/exe", path, size);
    if (length < 0) {
        return ERR_PROC_PARSE;
    }
    if ((size_t)length >= size) {
        return ERR_BUFFER_OVERFLOW;
    }
    path[length] = '\0';
    return 0;
}

int boincvm_run_program(const char *directory, const char *file, char *const words[], int *pid) {
    *pid = fork();
    if (*pid < 0) {
        return ERR_FORK;
    }
    if (*pid == 0) {
        if (directory == NULL || chdir(directory) == 0) {
            execvp(file, words);
        }
        _exit(127);
    }
    return 0;
}

int boincvm_exit_status(int pid, int *status, double seconds) {
    pid_t ended = 0;
    if (seconds < 0) {
        do {
            ended = waitpid(pid, status, 0);
        } while (ended < 0 && errno == EINTR);
        return ended == pid ? 0 : ERR_NOT_FOUND;
    }
    for (;;) {
        double nap = seconds < LONGEST_NAP ? seconds : LONGEST_NAP;
        ended = waitpid(pid, status, WNOHANG);
        if (ended != 0 || !(seconds > 0)) {
            return ended == pid ? 0 : ERR_NOT_FOUND;
        }
        boinc_sleep(nap);
        seconds -= nap;
    }
}
