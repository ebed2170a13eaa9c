/* The functions by which a BOINC application talks to whoever runs it.
 *
 * Names, arguments, return values and meaning are those of BOINC's api/boinc_api.h, so that an
 * application's source needs no change; the code is boincvm's own (Apache-2.0). Functions that
 * return int return 0 for success, else a number of error_numbers.h, unless said otherwise.
 * Every function may be called from any thread. README.md says what differs from BOINC.
 */
#ifndef BOINCVM_BOINC_API_H
#define BOINCVM_BOINC_API_H

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app_ipc.h"
#include "common_defs.h"
#include "util.h"

/* Default arguments are for C++; C has to give them all. */
#ifdef __cplusplus
#define BOINCVM_DEFAULT(value) = value
extern "C" {
#else
#define BOINCVM_DEFAULT(value)
#endif

/* main_program: boinc_finish() reports the end of the task. send_status_msgs:
 * boinc_fraction_done() reports. The others choose how BOINC's library handles signals, threads
 * and priorities; a virtual machine is suspended and ended from outside, so they do nothing. */
typedef struct BOINC_OPTIONS {
    int normal_thread_priority;
    int main_program;
    int check_heartbeat;
    int handle_trickle_ups;
    int handle_trickle_downs;
    int handle_process_control;
    int send_status_msgs;
    int direct_process_action;
    int multi_thread;
    int multi_process;
} BOINC_OPTIONS;

/* All zero but the last: what they tell of happens to the machine, not to the program in it. */
typedef struct BOINC_STATUS {
    int no_heartbeat;
    int suspended;
    int quit_request;
    int reread_init_data_file;
    int abort_request;
    double working_set_size;
    double max_working_set_size;
    int network_suspended;
    enum SPORADIC_CA_STATE ca_state;
} BOINC_STATUS;

extern volatile BOINC_STATUS boinc_status; /* all zero */

typedef void (*FUNC_PTR)(void);

/* Begin and end. boinc_finish, boinc_finish_message and boinc_temporary_exit (`delay` in
 * seconds; `reason` is one line) write out stdio's buffers and do not return. */
extern int boinc_init(void);
extern int boinc_init_parallel(void);
extern int boinc_init_options(BOINC_OPTIONS *options);
extern int start_timer_thread(void); /* does nothing, and returns 0 */
extern void boinc_options_defaults(BOINC_OPTIONS *options);
extern int boinc_finish(int status);
extern int boinc_finish_message(int status, const char *message, bool is_notice);
extern int boinc_temporary_exit(
    int delay, const char *reason BOINCVM_DEFAULT(nullptr), bool is_notice BOINCVM_DEFAULT(false));

/* What is known of the task: init_data.xml of the working directory. ERR_FOPEN: there is none.
 * The strings that a copy points to live until the file is parsed again. */
extern int boinc_parse_init_data_file(void);
extern int boinc_get_init_data_p(struct APP_INIT_DATA *data);
extern int boinc_get_status(BOINC_STATUS *status);
extern int boinc_is_standalone(void); /* 1: nobody listens, or there is no init_data.xml */

/* The place of a file: what its soft link says, or the name itself. ERR_BUFFER_OVERFLOW: the
 * result has no room in `length` bytes. */
extern int boinc_resolve_filename(const char *logical_name, char *physical_name, int length);

/* Progress, from 0 to 1. Cheap: call it as often as you like. */
extern int boinc_fraction_done(double fraction);
extern double boinc_get_fraction_done(void);
extern int boinc_report_app_status(
    double cpu_time, double checkpoint_cpu_time, double fraction_done);

/* The same; what else it says is the host's to find out: the processes in the machine, what they
 * have sent and received, their memory. */
extern int boinc_report_app_status_aux(
    double cpu_time, double checkpoint_cpu_time, double fraction_done, int other_pid,
    double bytes_sent, double bytes_received, double working_set_size);

/* Checkpoints. boinc_time_to_checkpoint returns 1 when the period (init_data.xml, else 300 s)
 * has passed since the last one. */
extern int boinc_time_to_checkpoint(void);
extern int boinc_checkpoint_completed(void);
extern int boinc_set_min_checkpoint_period(int seconds);
extern void boinc_begin_critical_section(void);
extern void boinc_end_critical_section(void);

/* Not BOINC's: asks that the machine as a whole be saved, for want of a checkpoint of one's own. */
extern int boincvm_want_checkpoint(void);

/* Seconds: of processor time in this run; in all runs of the task; on the clock in this run. */
extern double boinc_worker_thread_cpu_time(void);
extern int boinc_wu_cpu_time_p(double *cpu_time);
extern double boinc_elapsed_time(void);

/* Work done, for credit: floating-point and integer operations. */
extern void boinc_ops_cumulative(double floating, double integer);
extern void boinc_ops_per_cpu_sec(double floating, double integer);

/* Does nothing, as in BOINC since 2010: the project's server decides. */
extern void boinc_set_credit_claim(double credit);

/* Calls the function once a second in a thread of its own, from the first call of this on; a null
 * pointer ends that. */
extern void boinc_register_timer_callback(FUNC_PTR callback);

/* A sporadic application. In a machine nothing competes with it: it could compute (CA_COULD_COMPUTE),
 * and while it says that it wants to (AC_WANT_COMPUTE) it may (CA_COMPUTING). boinc_sporadic_dir says
 * and hears the same by the files DIRECTORY/ca and DIRECTORY/ac, for a program that is not linked
 * with this; it looks once a second. ERR_FOPEN: it cannot make them. */
extern void boinc_sporadic_set_ac_state(enum SPORADIC_AC_STATE state);
extern enum SPORADIC_CA_STATE boinc_sporadic_get_ca_state(void);
extern int boinc_sporadic_dir(const char *directory);

/* No address in a machine can be reached from outside, so these do nothing. */
extern void boinc_web_graphics_url(char *url);
extern void boinc_remote_desktop_addr(char *host_port);

/* Messages and files while the task runs. boinc_receive_trickle_down returns 1 and a file's name
 * (the caller deletes the file), or 0. The upload functions are BOINC's C++ ones below, for C;
 * boinc_upload_status_c returns ERR_NOT_FOUND until the upload has ended. */
extern int boinc_send_trickle_up(const char *variety, const char *text);
extern int boinc_receive_trickle_down(char *name, int length);
extern int boinc_upload_file_c(const char *logical_name);
extern int boinc_upload_status_c(const char *logical_name);

/* The network is there, or not, for the whole run. boinc_network_poll returns 0 if it is. */
extern void boinc_need_network(void);
extern void boinc_waiting_for_network(bool is_waiting); /* the host says it for the machine */
extern int boinc_network_poll(void);
extern void boinc_network_done(void);

/* BOINC stops other threads of its own with these; here there are none. Return 0. */
extern int boinc_suspend_other_activities(void);
extern int boinc_resume_other_activities(void);

/* BOINC's own example sets it, to look like a program that hangs; here it does nothing. */
extern bool boinc_disable_timer_thread;

/* "HH:MM:SS (process id):" for lines of a log; returns `text`, which has `length` bytes. */
extern char *boinc_msg_prefix(char *text, int length);

#ifdef __cplusplus
} /* extern "C" */

#include <string>

inline void boinc_options_defaults(BOINC_OPTIONS &options) { boinc_options_defaults(&options); }

inline void options_defaults(BOINC_OPTIONS &options) { boinc_options_defaults(&options); }

inline int boinc_init_options_general(BOINC_OPTIONS &options) {
    return boinc_init_options(&options);
}

inline int boinc_resolve_filename_s(const char *logical_name, std::string &physical_name) {
    char name[BOINCVM_PATH_SIZE];
    int result = boinc_resolve_filename(logical_name, name, static_cast<int>(sizeof name));
    if (result == 0) {
        physical_name = name;
    }
    return result;
}

inline int boinc_resolve_filename(const char *logical_name, std::string &physical_name) {
    return boinc_resolve_filename_s(logical_name, physical_name);
}

inline int boinc_get_init_data(APP_INIT_DATA &data) { return boinc_get_init_data_p(&data); }

inline int boinc_wu_cpu_time(double &cpu_time) { return boinc_wu_cpu_time_p(&cpu_time); }

inline int boinc_upload_file(const std::string &name) { return boinc_upload_file_c(name.c_str()); }

inline int boinc_upload_status(const std::string &name) {
    return boinc_upload_status_c(name.c_str());
}
#endif
#endif
