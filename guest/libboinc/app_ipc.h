/* What BOINC's client tells an application: init_data.xml, parsed. See boinc_api.h. */
#ifndef BOINCVM_APP_IPC_H
#define BOINCVM_APP_IPC_H

#include <stdbool.h>

#include "filesys.h"

#define INIT_DATA_FILE "init_data.xml"
#define UPLOAD_FILE_STATUS_PREFIX "boinc_ufs_"
#define DEFAULT_CHECKPOINT_PERIOD 300

#define BOINCVM_PATH_SIZE 4096

/* Sizes in bytes, speeds in operations a second. What the file does not say is 0 or "". */
typedef struct HOST_INFO {
    int timezone; /* seconds east of Greenwich */
    char domain_name[256];
    char ip_addr[256];
    char host_cpid[64];
    int p_ncpus;
    char p_vendor[256];
    char p_model[256];
    char p_features[8192];
    double p_fpops;
    double p_iops;
    double p_membw;
    double m_nbytes;
    double m_cache;
    double m_swap;
    double d_total;
    double d_free;
    char os_name[256];
    char os_version[256];
} HOST_INFO;

typedef struct GLOBAL_PREFS {
    double cpu_usage_limit; /* per cent */
    double max_ncpus_pct;
    double disk_max_used_gb;
    double ram_max_used_busy_frac;
    double ram_max_used_idle_frac;
} GLOBAL_PREFS;

typedef struct APP_INIT_DATA {
    int major_version;
    int minor_version;
    int release;
    int app_version;
    char app_name[256];
    char plan_class[256];
    char *project_preferences; /* XML as it is in the file, or a null pointer */
    int userid;
    int teamid;
    int hostid;
    char user_name[256];
    char team_name[256];
    char project_dir[BOINCVM_PATH_SIZE];
    char boinc_dir[BOINCVM_PATH_SIZE];
    char wu_name[256];
    char result_name[256];
    char authenticator[256];
    int slot;
    int client_pid;
    double user_total_credit;
    double user_expavg_credit;
    double host_total_credit;
    double host_expavg_credit;
    double resource_share_fraction;
    HOST_INFO host_info;
    GLOBAL_PREFS global_prefs;
    double starting_elapsed_time; /* seconds, of earlier runs of the task */
    bool using_sandbox;
    bool vm_extensions_disabled;
    double rsc_fpops_est;
    double rsc_fpops_bound;
    double rsc_memory_bound;
    double rsc_disk_bound;
    double computation_deadline; /* seconds since 1970 */
    double fraction_done_start;
    double fraction_done_end;
    char gpu_type[64];
    int gpu_device_num;
    int gpu_opencl_dev_index;
    double gpu_usage;
    double ncpus;
    bool no_priority_change;
    int process_priority;
    int process_priority_special;
    double checkpoint_period; /* seconds, never 0 */
    double wu_cpu_time;       /* seconds, of earlier runs of the task */
} APP_INIT_DATA;

#endif
