/* The volunteer's preferences, as <global_preferences> of init_data.xml has them (BOINC's
 * lib/prefs.h). What the file does not say is 0. */
#ifndef BOINCVM_PREFS_H
#define BOINCVM_PREFS_H

#include <stdbool.h>
#include <string.h>

#include "common_defs.h"
#ifdef __cplusplus
#include <cstdio>

#include "miofile.h"
#include "parse.h"
#endif

typedef struct TIME_PREFS {
    double start_hour; /* of the day, 0 to 24 */
    double end_hour;
} TIME_PREFS;

typedef struct GLOBAL_PREFS {
    double mod_time; /* seconds since 1970 */
    double battery_charge_min_pct;
    double battery_max_temperature;
    bool confirm_before_connecting;
    double cpu_scheduling_period_minutes;
    TIME_PREFS cpu_times;
    double cpu_usage_limit; /* per cent */
    double daily_xfer_limit_mb;
    int daily_xfer_period_days;
    double disk_interval; /* seconds */
    double disk_max_used_gb;
    double disk_max_used_pct;
    double disk_min_free_gb;
    bool dont_verify_images;
    bool hangup_if_dialed;
    double idle_time_to_run; /* minutes */
    bool leave_apps_in_memory;
    double max_bytes_sec_down;
    double max_bytes_sec_up;
    int max_ncpus;
    double max_ncpus_pct;
    TIME_PREFS net_times;
    bool network_wifi_only;
    double niu_cpu_usage_limit;
    double niu_max_ncpus_pct;
    double niu_suspend_cpu_usage;
    double ram_max_used_busy_frac; /* 0 to 1 */
    double ram_max_used_idle_frac; /* 0 to 1 */
    bool run_gpu_if_user_active;
    bool run_if_user_active;
    bool run_on_batteries;
    double suspend_cpu_usage; /* per cent */
    double suspend_if_no_recent_input; /* minutes */
    double vm_max_used_frac; /* 0 to 1 */
    double work_buf_additional_days;
    double work_buf_min_days;
    char source_project[256];
    char source_scheduler[256];
    bool host_specific;
    bool override_file_present;
#ifdef __cplusplus
    GLOBAL_PREFS() { memset(static_cast<void *>(this), 0, sizeof *this); }
    double cpu_scheduling_period() const { return cpu_scheduling_period_minutes * 60; }
#endif
} GLOBAL_PREFS;

#endif
