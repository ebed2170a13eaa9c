/* GPUs (BOINC's lib/coproc.h). A machine of boincvm has none: COPROCS is always empty. */
#ifndef BOINCVM_COPROC_H
#define BOINCVM_COPROC_H

#include <stddef.h>
#include <string.h>

#include "common_defs.h"
#include "error_numbers.h"
#ifdef __cplusplus
#include <string>
#include <vector>

#include "boinc_stdio.h"
#include "miofile.h"
#endif

#define MAX_COPROC_INSTANCES 64
#define MAX_RSC 8

#define PROC_TYPE_CPU 0
#define PROC_TYPE_NVIDIA_GPU 1
#define PROC_TYPE_AMD_GPU 2
#define PROC_TYPE_INTEL_GPU 3
#define PROC_TYPE_APPLE_GPU 4
#define NPROC_TYPES 5

#ifdef __cplusplus
extern "C" {
#endif

/* For people, and as APP_INIT_DATA's gpu_type has it; "unknown" for any other number. */
static inline const char *proc_type_name(int type) {
    static const char *const names[] = {"CPU", "NVIDIA GPU", "AMD/ATI GPU", "Intel GPU", "Apple GPU"};
    return type >= 0 && type < NPROC_TYPES ? names[type] : "unknown";
}

static inline const char *proc_type_name_xml(int type) {
    static const char *const names[] = {"CPU", "NVIDIA", "ATI", "intel_gpu", "apple_gpu"};
    return type >= 0 && type < NPROC_TYPES ? names[type] : "unknown";
}

/* The number of a name of proc_type_name_xml(), or -1. */
static inline int coproc_type_name_to_num(const char *name) {
    int type;
    for (type = 0; type < NPROC_TYPES; type++) {
        if (strcmp(name, proc_type_name_xml(type)) == 0) {
            return type;
        }
    }
    return -1;
}

#ifdef __cplusplus
}
#endif

#define GPU_TYPE_NVIDIA proc_type_name_xml(PROC_TYPE_NVIDIA_GPU)
#define GPU_TYPE_ATI proc_type_name_xml(PROC_TYPE_AMD_GPU)
#define GPU_TYPE_INTEL proc_type_name_xml(PROC_TYPE_INTEL_GPU)
#define GPU_TYPE_APPLE proc_type_name_xml(PROC_TYPE_APPLE_GPU)

typedef struct COPROC {
    char type[256];
    int count;
    double peak_flops;
} COPROC;

typedef struct COPROCS {
    int n_rsc; /* entries of `coprocs`; the first is the CPU's */
    COPROC coprocs[1];
#ifdef __cplusplus
    COPROCS() : n_rsc(1), coprocs() { strcpy(coprocs[0].type, "CPU"); }
    bool none() const { return true; }
    int ndevs() const { return 0; }
    bool have_nvidia() const { return false; }
    bool have_ati() const { return false; }
    bool have_intel_gpu() const { return false; }
    bool have_apple_gpu() const { return false; }
    COPROC *lookup_type(const char *) { return nullptr; }
    COPROC *proc_type_to_coproc(int) { return nullptr; }
#endif
} COPROCS;

#endif
