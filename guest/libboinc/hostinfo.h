/* The computer (BOINC's lib/hostinfo.h): <host_info> of init_data.xml, or what the system says of
 * itself, which in a machine of boincvm is the machine. */
#ifndef BOINCVM_HOSTINFO_H
#define BOINCVM_HOSTINFO_H

#include <stdbool.h>
#include <string.h>

#include "common_defs.h"
#include "coproc.h"
#ifdef __cplusplus
#include "miofile.h"
#endif

#define P_FEATURES_SIZE 8192
#define USER_IDLE_TIME_INF 86400

/* Sizes in bytes, speeds in operations a second. What is not known is 0 or "". */
typedef struct HOST_INFO {
    int timezone; /* seconds east of Greenwich */
    char domain_name[256];
    char ip_addr[256];
    char host_cpid[64];
    int p_ncpus;
    char p_vendor[256];
    char p_model[256];
    char p_features[P_FEATURES_SIZE];
    double p_fpops;
    double p_iops;
    double p_membw;
    double p_calculated; /* when the speeds were measured: seconds since 1970 */
    bool p_vm_extensions_disabled;
    double m_nbytes;
    double m_cache;
    double m_swap;
    double d_total;
    double d_free;
    char os_name[256];
    char os_version[256];
    char product_name[256];
    char mac_address[256];
    char virtualbox_version[256];
    COPROCS coprocs;
#ifdef __cplusplus
    HOST_INFO();
    void clear_host_info();
    /* Ask the system. Return 0. */
    int get_host_info(bool init);
    int get_cpu_info();
    int get_cpu_count();
    int get_memory_info();
    int get_os_info();
#endif
} HOST_INFO;

#ifdef __cplusplus
extern "C" {
#endif

/* Fills in what the system says of itself; see boinc_hostinfo.c. Not BOINC's. */
extern void boincvm_ask_system(HOST_INFO *host);

#ifdef __cplusplus
} /* extern "C" */

inline void HOST_INFO::clear_host_info() {
    memset(static_cast<void *>(this), 0, sizeof *this);
    coprocs = COPROCS();
}

inline HOST_INFO::HOST_INFO() { clear_host_info(); }

inline int HOST_INFO::get_host_info(bool) {
    boincvm_ask_system(this);
    return 0;
}

inline int HOST_INFO::get_cpu_info() { return get_host_info(false); }
inline int HOST_INFO::get_cpu_count() { return get_host_info(false); }
inline int HOST_INFO::get_memory_info() { return get_host_info(false); }
inline int HOST_INFO::get_os_info() { return get_host_info(false); }
#endif
#endif
