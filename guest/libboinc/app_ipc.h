/* What BOINC's client tells an application: init_data.xml, parsed. See boinc_api.h. */
#ifndef BOINCVM_APP_IPC_H
#define BOINCVM_APP_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifdef __cplusplus
#include <cstdio>
#include <string>
#include <vector>
#endif

#include "common_defs.h"
#include "filesys.h"
#include "hostinfo.h"
#include "prefs.h"
#include "proxy_info.h"

#define INIT_DATA_FILE "init_data.xml"
#define BOINC_FINISH_CALLED_FILE "boinc_finish_called"
#define TEMPORARY_EXIT_FILE "boinc_temporary_exit"
#define TRICKLE_UP_FILENAME "trickle_up.xml"
#define STDERR_FILE "stderr.txt"
#define STDOUT_FILE "stdout.txt"
#define LOCKFILE "boinc_lockfile"
#define UPLOAD_FILE_REQ_PREFIX "boinc_ufr_"
#define UPLOAD_FILE_STATUS_PREFIX "boinc_ufs_"
#define PROJECT_DIR "projects"
#define DEFAULT_CHECKPOINT_PERIOD 300

#define BOINCVM_PATH_SIZE 4096

/* The names of the app version's files: what C++ code does with a constant std::vector of them
 * works as well. They live until the file is parsed again. */
typedef struct BOINCVM_NAMES {
    const char *const *names;
    size_t count;
#ifdef __cplusplus
    size_t size() const { return count; }
    bool empty() const { return count == 0; }
    const char *const *begin() const { return names; }
    const char *const *end() const { return names + count; }
    std::string operator[](size_t index) const { return names[index]; }
    operator std::vector<std::string>() const { return std::vector<std::string>(begin(), end()); }
#endif
} BOINCVM_NAMES;

/* What the file does not say is 0 or "". */
typedef struct APP_INIT_DATA {
    int major_version;
    int minor_version;
    int release;
    int app_version;
    char app_name[256];
    char plan_class[256];
    char symstore[256];
    char acct_mgr_url[256];
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
    PROXY_INFO proxy_info;
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
    bool vbox_window;
    bool no_priority_change;
    int process_priority;
    int process_priority_special;
    BOINCVM_NAMES app_files;
    double checkpoint_period; /* seconds, never 0 */
    int shmem_seg_name;       /* the client's; of no use in a machine */
    double wu_cpu_time;       /* seconds, of earlier runs of the task */
#ifdef __cplusplus
    APP_INIT_DATA() { clear(); }
    void clear() { /* as there is no init_data.xml */
        memset(static_cast<void *>(this), 0, sizeof *this);
        host_info.clear_host_info();
        gpu_device_num = gpu_opencl_dev_index = -1;
        process_priority = process_priority_special = CONFIG_PRIORITY_UNSPECIFIED;
        fraction_done_end = 1;
        checkpoint_period = DEFAULT_CHECKPOINT_PERIOD;
    }
#endif
} APP_INIT_DATA;

#ifdef __cplusplus
extern "C" {
#endif

/* The place of a file: what its soft link says, or the name itself (boinc_resolve_filename). */
extern int resolve_soft_link(const char *logical_name, char *physical_name, int length);

#ifdef __cplusplus
}
#endif
#endif
