/* Time, numbers and processes, with the names of BOINC's lib/util.h. See boinc_api.h. */
#ifndef BOINCVM_UTIL_H
#define BOINCVM_UTIL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "common_defs.h"

#define SECONDS_PER_DAY 86400
#define KILO (1024.0)
#define MEGA (1048576.0)
#define GIGA (1073741824.0)
#define TERA (1099511627776.0)

/* Nice values. */
enum {
    PROCESS_IDLE_PRIORITY = 19,
    PROCESS_MEDIUM_PRIORITY = 10,
    PROCESS_NORMAL_PRIORITY = 0,
    PROCESS_ABOVE_NORMAL_PRIORITY = -10,
    PROCESS_HIGH_PRIORITY = -15,
    PROCESS_REALTIME_PRIORITY = -20
};

#ifdef __cplusplus
extern "C" {
#endif

extern double dtime(void);               /* seconds since 1970 */
extern double dday(void);                /* the same, of the day's first second (UTC) */
extern void boinc_sleep(double seconds); /* whatever signals come */

static inline double drand(void) { return (double)rand() / (double)RAND_MAX; }
extern bool boinc_is_finite(double number);

/* Ends like a program with a fault in it. */
static inline void boinc_crash(void) { raise(SIGSEGV); }

/* Processes. The functions that return int return 0, or a number of error_numbers.h.
 * linux_cpu_time: seconds of the process's own threads, 0 if there is none. process_exists: also
 * one that has ended and that nobody has waited for. */
extern double linux_cpu_time(int pid);
extern bool process_exists(int pid);
extern int kill_process(int pid);
extern int get_real_executable_path(char *path, size_t size);

/* For the C++ functions below. boincvm_run_program: `words` end with a null pointer.
 * boincvm_exit_status: waits up to `seconds`, without end if they are negative; ERR_NOT_FOUND if the
 * process still runs, or is no child. */
extern int boincvm_run_program(const char *directory, const char *file, char *const words[], int *pid);
extern int boincvm_exit_status(int pid, int *status, double seconds);
extern double boincvm_thread_cpu_time(void);

#ifdef __cplusplus
} /* extern "C" */

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "error_numbers.h"

#define PROCESS_REF int

/* Mean 0, standard deviation 1 (Marsaglia's polar method). */
inline double rand_normal() {
    double x, y, square;
    do {
        x = 2 * drand() - 1;
        y = 2 * drand() - 1;
        square = x * x + y * y;
    } while (square >= 1 || square == 0);
    return x * std::sqrt(-2 * std::log(square) / square);
}

inline void push_unique(std::string text, std::vector<std::string> &texts) {
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) {
        texts.push_back(text);
    }
}

inline bool in_vector(int number, std::vector<int> &numbers) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

inline int boinc_calling_thread_cpu_time(double &seconds) {
    seconds = boincvm_thread_cpu_time();
    return 0;
}

inline int run_program(
    const char *directory, const char *file, int, char *const words[], PROCESS_REF &pid) {
    return boincvm_run_program(directory, file, words, &pid);
}

/* `status` as of waitpid(). */
inline int get_exit_status(PROCESS_REF pid, int &status, double seconds) {
    return boincvm_exit_status(pid, &status, seconds);
}

/* The lines that a shell command prints, with their ends; -1 if it fails. */
inline int run_command(const char *command, std::vector<std::string> &lines) {
    char *line = nullptr;
    size_t room = 0;
    FILE *file = popen(command, "re");
    lines.clear();
    if (!file) {
        return ERR_FOPEN;
    }
    while (getline(&line, &room, file) > 0) {
        lines.push_back(line);
    }
    free(line);
    return pclose(file) == 0 ? 0 : -1;
}
#endif
#endif
