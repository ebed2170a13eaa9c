/* See boinc_api.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "boinc_api.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "boinc_init_data.h"
#include "boinc_status_channel.h"
#include "error_numbers.h"
#include "str_replace.h"

#define REPORT_PERIOD 0.5 /* seconds between reports of progress, unless it has made a step */
#define REPORT_STEP 0.01  /* of the fraction done, beyond all that was reported before */

/* A coarse clock is read without a system call even where the machine's exact one is slow. */
#ifdef CLOCK_MONOTONIC_COARSE
#define CLOCK CLOCK_MONOTONIC_COARSE
#else
#define CLOCK CLOCK_MONOTONIC
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of everything in `state` */

static struct {
    BOINC_OPTIONS options;
    APP_INIT_DATA data;
    bool has_data;
    double started;
    double checkpoint_due;
    int minimum_period;
    double fraction, sent_fraction, highest_sent_fraction, fraction_sent_at;
    double checkpoint_cpu_time;
    double floating, integer, floating_rate, integer_rate, operations_sent_at;
    bool has_operations, has_rates;
    FUNC_PTR timer_callback;
    enum SPORADIC_AC_STATE wanted;
    bool has_sporadic_files, has_timer;
} state;

static int wanted_file = -1, allowed_file = -1; /* of boinc_sporadic_dir() */

volatile BOINC_STATUS boinc_status;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double checkpoint_period(void) {
    double period = state.data.checkpoint_period;
    return state.minimum_period > period ? state.minimum_period : period;
}

/* ---- begin and end ---- */

void boinc_options_defaults(BOINC_OPTIONS *options) {
    memset(options, 0, sizeof *options);
    options->main_program = 1;
    options->check_heartbeat = 1;
    options->handle_trickle_ups = 1;
    options->handle_trickle_downs = 1;
    options->handle_process_control = 1;
    options->send_status_msgs = 1;
    options->direct_process_action = 1;
}

int boinc_init_options(BOINC_OPTIONS *options) {
    boinc_parse_init_data_file(); /* that there is none is no fault: see boinc_is_standalone */
    pthread_mutex_lock(&lock);
    state.options = *options;
    state.started = seconds();
    state.checkpoint_due = state.started + checkpoint_period();
    state.fraction = state.sent_fraction = state.highest_sent_fraction = -1;
    state.checkpoint_cpu_time = state.data.wu_cpu_time;
    pthread_mutex_unlock(&lock);
    return 0;
}

int boinc_init(void) {
    BOINC_OPTIONS options;
    boinc_options_defaults(&options);
    return boinc_init_options(&options);
}

int start_timer_thread(void) { return 0; }

int boinc_init_parallel(void) {
    BOINC_OPTIONS options;
    boinc_options_defaults(&options);
    options.multi_thread = 1;
    return boinc_init_options(&options);
}

/* The operations that were counted and not yet reported; to be called without the lock. */
static void say_operations(void) {
    double floating, integer;
    bool has_operations;
    pthread_mutex_lock(&lock);
    has_operations = state.has_operations || state.has_rates;
    floating = state.floating;
    integer = state.integer;
    if (state.has_rates) {
        double cpu_time = boinc_worker_thread_cpu_time();
        floating += state.floating_rate * cpu_time;
        integer += state.integer_rate * cpu_time;
    }
    state.has_operations = false;
    state.operations_sent_at = seconds();
    pthread_mutex_unlock(&lock);
    if (has_operations) {
        boincvm_send_message(BOINCVM_WAIT, "operations %.0f %.0f", floating, integer);
    }
}

int boinc_finish_message(int status, const char *message, bool is_notice) {
    fflush(NULL);
    say_operations();
    if (state.options.main_program) {
        boincvm_send_message(
            BOINCVM_WAIT, "finish %d %d %s", status, is_notice, message != NULL ? message : "");
    }
    exit(status);
}

int boinc_finish(int status) { return boinc_finish_message(status, NULL, false); }

int boinc_temporary_exit(int delay, const char *reason, bool is_notice) {
    fflush(NULL);
    say_operations();
    boincvm_send_message(
        BOINCVM_WAIT, "temporary-exit %d %d %s", delay > 0 ? delay : 0, is_notice,
        reason != NULL && *reason != '\0' ? reason : "the application gave no reason");
    exit(0);
}

/* ---- what is known of the task ---- */

int boinc_parse_init_data_file(void) {
    APP_INIT_DATA *data = (APP_INIT_DATA *)malloc(sizeof *data);
    int result;
    if (data == NULL) {
        return ERR_MALLOC;
    }
    result = boincvm_read_init_data(INIT_DATA_FILE, data);
    pthread_mutex_lock(&lock);
    boincvm_free_init_data(&state.data);
    state.data = *data;
    state.has_data = result == 0;
    pthread_mutex_unlock(&lock);
    free(data);
    return result;
}

int boinc_get_init_data_p(struct APP_INIT_DATA *data) {
    pthread_mutex_lock(&lock);
    *data = state.data;
    pthread_mutex_unlock(&lock);
    return 0;
}

int boinc_get_status(BOINC_STATUS *status) {
    memset(status, 0, sizeof *status);
    status->ca_state = boinc_sporadic_get_ca_state();
    return 0;
}

int boincvm_slot(void) { return state.data.slot; }

int boinc_is_standalone(void) { return !(state.has_data && boincvm_status_channel_exists()); }

int resolve_soft_link(const char *logical_name, char *physical_name, int length) {
    return boinc_resolve_filename(logical_name, physical_name, length);
}

int boinc_resolve_filename(const char *logical_name, char *physical_name, int length) {
    char text[BOINCVM_PATH_SIZE + 64];
    const char *found = NULL;
    size_t size, count;
    if (logical_name == NULL || physical_name == NULL || length <= 0) {
        return ERR_NULL;
    }
    count = strlen(logical_name);
    if (!is_symlink(logical_name) && boincvm_read_file(logical_name, text, sizeof text) > 0) {
        /* A soft link holds this and nothing before it; a file of data may hold anything. */
        size_t blank = strspn(text, " \t\r\n");
        if (strncmp(text + blank, "<soft_link>", 11) == 0) {
            found = boincvm_element(text, "soft_link", &size);
        }
    }
    while (found != NULL && size > 0 && strchr(" \t\r\n", *found) != NULL) {
        found++;
        size--;
    }
    while (found != NULL && size > 0 && strchr(" \t\r\n", found[size - 1]) != NULL) {
        size--;
    }
    if (found == NULL || size == 0) {
        found = logical_name;
        size = count;
    }
    if (size >= (size_t)length) {
        strlcpy(physical_name, logical_name, (size_t)length);
        return ERR_BUFFER_OVERFLOW;
    }
    memcpy(physical_name, found, size);
    physical_name[size] = '\0';
    return 0;
}

/* ---- progress and checkpoints ---- */

/* Whether `fraction` is to be reported now; if so it counts as reported. Needs the lock. */
static bool is_due(double fraction) {
    double now;
    bool is_step;
    if (!state.options.send_status_msgs || fraction == state.sent_fraction) {
        return false;
    }
    now = seconds();
    is_step = fraction >= state.highest_sent_fraction + REPORT_STEP ||
              (fraction == 1 && state.highest_sent_fraction < 1);
    if (!is_step && now - state.fraction_sent_at < REPORT_PERIOD) {
        return false;
    }
    state.sent_fraction = fraction;
    state.fraction_sent_at = now;
    if (fraction > state.highest_sent_fraction) {
        state.highest_sent_fraction = fraction;
    }
    return true;
}

int boinc_fraction_done(double fraction) {
    double shown = fraction < 1 ? fraction : 1;
    bool due;
    if (!isfinite(fraction)) {
        return ERR_INVALID_PARAM;
    }
    pthread_mutex_lock(&lock);
    state.fraction = fraction;
    due = fraction >= 0 && is_due(shown);
    pthread_mutex_unlock(&lock);
    if (due) { /* in millionths: a decimal point that no locale makes a comma */
        long millionths = (long)(shown * 1e6 + 0.5);
        boincvm_send_message(
            BOINCVM_MAY_DROP, "fraction-done %ld.%06ld", millionths / 1000000,
            millionths % 1000000);
    }
    return 0;
}

double boinc_get_fraction_done(void) {
    double fraction;
    pthread_mutex_lock(&lock);
    fraction = state.fraction;
    pthread_mutex_unlock(&lock);
    return fraction;
}

int boinc_report_app_status(double cpu_time, double checkpoint_cpu_time, double fraction_done) {
    bool is_checkpoint;
    (void)cpu_time; /* the guest's agent measures it */
    pthread_mutex_lock(&lock);
    is_checkpoint = checkpoint_cpu_time > state.checkpoint_cpu_time;
    if (is_checkpoint) {
        state.checkpoint_cpu_time = checkpoint_cpu_time;
    }
    pthread_mutex_unlock(&lock);
    if (is_checkpoint) {
        boincvm_send_message(BOINCVM_WAIT, "checkpoint-completed");
    }
    return boinc_fraction_done(fraction_done);
}

int boinc_report_app_status_aux(
    double cpu_time, double checkpoint_cpu_time, double fraction_done, int other_pid,
    double bytes_sent, double bytes_received, double working_set_size) {
    (void)other_pid;
    (void)bytes_sent;
    (void)bytes_received;
    (void)working_set_size;
    return boinc_report_app_status(cpu_time, checkpoint_cpu_time, fraction_done);
}

int boinc_time_to_checkpoint(void) {
    bool is_due_now;
    pthread_mutex_lock(&lock);
    is_due_now = seconds() >= state.checkpoint_due;
    pthread_mutex_unlock(&lock);
    return is_due_now;
}

int boinc_checkpoint_completed(void) {
    double cpu_time = boinc_worker_thread_cpu_time();
    pthread_mutex_lock(&lock);
    state.checkpoint_due = seconds() + checkpoint_period();
    state.checkpoint_cpu_time = state.data.wu_cpu_time + cpu_time;
    pthread_mutex_unlock(&lock);
    say_operations();
    boincvm_send_message(BOINCVM_WAIT, "checkpoint-completed");
    return 0;
}

int boinc_set_min_checkpoint_period(int minimum) {
    pthread_mutex_lock(&lock);
    state.minimum_period = minimum;
    if (state.checkpoint_due < seconds() + minimum) {
        state.checkpoint_due = seconds() + minimum;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int boincvm_want_checkpoint(void) {
    boincvm_send_message(BOINCVM_WAIT, "checkpoint-wanted");
    return 0;
}

/* Nothing interrupts the program in here but the machine as a whole, which may be stopped and
 * saved between any two instructions. */
void boinc_begin_critical_section(void) {}

void boinc_end_critical_section(void) {}

/* ---- time and operations ---- */

double boinc_worker_thread_cpu_time(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return 0;
    }
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int boinc_wu_cpu_time_p(double *cpu_time) {
    *cpu_time = state.data.wu_cpu_time + boinc_worker_thread_cpu_time();
    return 0;
}

double boinc_elapsed_time(void) { return seconds() - state.started; }

static double operations(double count) { return isfinite(count) && count > 0 ? count : 0; }

void boinc_ops_cumulative(double floating, double integer) {
    bool due;
    pthread_mutex_lock(&lock);
    state.floating = operations(floating);
    state.integer = operations(integer);
    state.has_operations = true;
    due = seconds() - state.operations_sent_at >= REPORT_PERIOD;
    pthread_mutex_unlock(&lock);
    if (due) {
        say_operations();
    }
}

void boinc_ops_per_cpu_sec(double floating, double integer) {
    pthread_mutex_lock(&lock);
    state.floating_rate = operations(floating);
    state.integer_rate = operations(integer);
    state.has_rates = true;
    pthread_mutex_unlock(&lock);
}

void boinc_set_credit_claim(double credit) { (void)credit; }

/* ---- once a second ---- */

/* Hears what a sporadic program wants by its file, and says what it may. */
static void exchange_sporadic_files(void) {
    char text[32];
    int wanted;
    ssize_t length = pread(wanted_file, text, sizeof text - 1, 0);
    if (length > 0) {
        text[length] = '\0';
        wanted = atoi(text);
        if (wanted >= AC_NONE && wanted <= AC_WANT_COMPUTE) {
            boinc_sporadic_set_ac_state((enum SPORADIC_AC_STATE)wanted);
        }
    }
    length = snprintf(text, sizeof text, "%d\n", (int)boinc_sporadic_get_ca_state());
    if (pwrite(allowed_file, text, (size_t)length, 0) != length) {
        boinc_sporadic_set_ac_state(AC_NONE); /* a full disk: the program goes by the file */
    }
}

static void *run_timer(void *nothing) {
    for (;;) {
        FUNC_PTR callback;
        bool has_files;
        boinc_sleep(1);
        pthread_mutex_lock(&lock);
        callback = state.timer_callback;
        has_files = state.has_sporadic_files;
        pthread_mutex_unlock(&lock);
        if (callback != NULL) {
            callback();
        }
        if (has_files) {
            exchange_sporadic_files();
        }
    }
    return nothing;
}

/* Once, with all signals blocked: they are for the application's own threads. */
static void begin_timer(void) {
    pthread_t thread;
    sigset_t all, before;
    bool has_timer;
    pthread_mutex_lock(&lock);
    has_timer = state.has_timer;
    state.has_timer = true;
    pthread_mutex_unlock(&lock);
    if (has_timer) {
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, run_timer, NULL) == 0) {
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void boinc_register_timer_callback(FUNC_PTR callback) {
    pthread_mutex_lock(&lock);
    state.timer_callback = callback;
    pthread_mutex_unlock(&lock);
    begin_timer();
}

void boinc_sporadic_set_ac_state(enum SPORADIC_AC_STATE wanted) {
    pthread_mutex_lock(&lock);
    state.wanted = wanted;
    pthread_mutex_unlock(&lock);
}

enum SPORADIC_CA_STATE boinc_sporadic_get_ca_state(void) {
    bool is_wanted;
    pthread_mutex_lock(&lock);
    is_wanted = state.wanted == AC_WANT_COMPUTE;
    pthread_mutex_unlock(&lock);
    return is_wanted ? CA_COMPUTING : CA_COULD_COMPUTE;
}

int boinc_sporadic_dir(const char *directory) {
    char path[BOINCVM_PATH_SIZE];
    if (allowed_file >= 0) {
        return 0;
    }
    snprintf(path, sizeof path, "%s/ac", directory);
    wanted_file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0666);
    snprintf(path, sizeof path, "%s/ca", directory);
    allowed_file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (wanted_file < 0 || allowed_file < 0) {
        close(wanted_file);
        close(allowed_file);
        wanted_file = allowed_file = -1;
        return ERR_FOPEN;
    }
    exchange_sporadic_files();
    pthread_mutex_lock(&lock);
    state.has_sporadic_files = true;
    pthread_mutex_unlock(&lock);
    begin_timer();
    return 0;
}

/* What there is none of in a machine: see boinc_api.h. */
void boinc_web_graphics_url(char *url) { (void)url; }

void boinc_remote_desktop_addr(char *host_port) { (void)host_port; }
